"""Runs of one config in, what of them counts as a try of what would run now out. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import takewhile

from labelloop.code import training_code
from labelloop.records.runs import TRANSIENT, Run


def tries(runs: Iterable[Run], kind: str, snapshot: str) -> list[Run]:
    """What has been tried of what would run now, oldest first. ``runs``: of one config; ``snapshot``: the newest.

    A refresh: those on this snapshot. A retrain: those of this code since its last verdict, on whatever snapshot: it
    takes so long that people label meanwhile, and that makes no other run of it.
    """
    of_kind = sorted((r for r in runs if r.kind == kind), key=lambda r: r.id)
    if kind != "retrain":
        return [r for r in of_kind if r.snapshot == snapshot]
    ours = [r for r in of_kind if r.training == training_code()]
    return list(takewhile(lambda r: not r.done, reversed(ours)))[::-1]


def failed_tries(runs: Iterable[Run], kind: str, snapshot: str, *, retries: Collection[str] = ()) -> list[Run]:
    """Those of `tries` that count towards a hold: only failures since a person asked for all of ``retries``.

    Nor does what a store, Redis or a full disk has failed: that is tried until it works.
    """
    failed = [r for r in tries(runs, kind, snapshot) if r.outcome == "failed" and not r.detail.get(TRANSIENT)]
    return [r for r in failed if set(retries) <= set(r.answers)]


def begun(runs: Iterable[Run], kind: str, snapshot: str, *, retries: Collection[str] = ()) -> str:
    """The snapshot to run on: that of a try which ended without a verdict, whose epochs are kept; else the newest.

    Where a person asked for another try the newest, too: they may have corrected labels.
    """
    without = [r for r in tries(runs, kind, snapshot) if r.outcome in {"failed", "running"}]
    goes_on = bool(without) and set(retries) <= set(without[-1].answers)
    return without[-1].snapshot if goes_on else snapshot
