"""Versions and people's decisions in, what waits for approval out. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from labelloop.records.evidence import Outcome
from labelloop.records.versions import Version


def waiting(versions: Sequence[Version], *, live: str | None, rejected: Collection[str]) -> list[Version]:
    """The newest version of each kind that is held for a person, came after the champion and was not refused.

    ``live``: the champion's name. A refresh is held only where `gate.approval` wants a person; a retrain also
    where the evidence does not suffice, and then the person may know more.
    """
    since = int(live[1:]) if live else 0
    open_ones = [v for v in versions if v.verdict.outcome is Outcome.HOLD and v.number > since]
    newest = {v.kind: v for v in sorted(open_ones, key=lambda v: v.number)}
    return sorted((v for v in newest.values() if v.name not in rejected), key=lambda v: v.number)


def state(version: Version, *, live: str | None, rejected: Collection[str], waits: Collection[str]) -> str:
    """What has become of a version, in a word or two."""
    if version.name == live:
        return "live"
    if version.name in rejected:
        return "rejected by a person"
    if version.name in waits:
        return "waits for approval" if version.verdict.awaits else "held"
    return str(version.verdict.outcome)
