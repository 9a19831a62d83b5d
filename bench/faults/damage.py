"""`python -m bench.faults.damage`: each kind of object damaged in each way, under a loop that runs and one that starts.

What is noticed, told and healed, as a table (docs/faults.md shows it). Backend, watcher and worker are those of life,
on a store in memory; tests/unit/store/test_damage.py asserts what this prints.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from labelloop.errors import LabelloopError
from labelloop.objects.storage import MemoryStore, ObjectStore
from labelloop.store.catalogue import Catalogue
from labelloop.store.features import FeatureIndex
from labelloop.store.projects import project_store
from labelloop.upkeep.inspection import fault_of
from ml_backend.contract import RequestError
from tests.unit.worlds.damage import DAMAGES, HOSTILE, OTHER, VICTIM, Base, Loop, ask, build, loop_of, pause

PATIENCE_S = 2.0
MORE = 12  # labels that people give after the damage: a refresh is due


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of one damaged object."""

    kind: str
    damage: str
    restarted: bool
    ready: bool
    other: bool  # the other project answers, and learns
    answers: str  # version that the damaged project's /predict names, or the refusal
    learns: bool  # a run of the damaged project came to a verdict
    doctor: bool  # it is named, as long as it is damaged ...
    status: bool  # ... by status, too
    healed: bool  # it can be read in the end, or is replaced by another
    errors: tuple[str, ...]  # of jobs


def play(base: Base, kind: str, damage: Callable[[bytes], bytes], name: str, *, restarted: bool) -> Seen:
    """One damaged object, from the damage to rest."""
    key = base.kinds().get(kind, "")
    with tempfile.TemporaryDirectory() as folder, loop_of(base, Path(folder)) as (store, start):
        loop = None if restarted else start()
        if loop:
            loop.ready()
            loop.settle(2)
        key = key or _made(store, base, kind)
        store.put(key, damage(store.get(key)))
        loop = loop or start()
        ready = loop.ready()
        diagnosed = loop.diagnosed()
        loop.watch()
        told = loop.told()
        base.label(VICTIM, MORE)
        base.label(OTHER, MORE)
        before = loop.runs(VICTIM)
        loop.settle(4, (VICTIM,))
        told |= loop.told()
        return Seen(
            kind, name, restarted, ready, _well(loop), _answer(loop, VICTIM), loop.runs(VICTIM) > before,
            key in diagnosed, key in told, _healed(store, base, key), tuple(loop.errors),
        )  # fmt: skip


def _made(store: MemoryStore, base: Base, kind: str) -> str:
    """Of a moment alone: written for this."""
    {"requests": ask, "paused.json": pause}[kind](store, VICTIM, base)
    prefix = f"projects/{base.records[VICTIM].key}/{kind}"
    return max(info.key for info in store.list(prefix))


def _well(loop: Loop) -> bool:
    return _answer(loop, OTHER) == "v2" and "refresh" in loop.waits(OTHER)


def _answer(loop: Loop, number: int) -> str:
    """A refused version is loaded again after a moment (`damage_world.RETRY_S`)."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return str(loop.predict(number)[0]["model_version"])
        except (RequestError, LabelloopError) as error:
            if time.monotonic() > until:
                return f"{type(error).__name__}: {error}"
        time.sleep(0.05)


def _healed(store: MemoryStore, base: Base, key: str) -> bool:
    if not store.exists(key):
        return True
    inner = key.removeprefix(f"projects/{base.records[VICTIM].key}/")
    try:
        if inner.startswith("features/"):
            return _computed_again(project_store(store, base.records[VICTIM].key), inner)
        raw = store.get(key)
        if key.startswith("index/"):
            return raw == base.objects[key]
        return fault_of(inner, raw) is None and (not _unknown(inner) or raw == base.objects[key])
    except LabelloopError:
        return False


def _computed_again(own: ObjectStore, inner: str) -> bool:
    """Every image has features, and none of them in the damaged shard."""
    _, backbone, _, name = inner.split("/")
    index, catalogue = FeatureIndex(own, backbone), Catalogue(own)
    index.update()
    catalogue.update()
    shards = {place.shard for place in index.places.values()}
    return index.places.keys() == catalogue.images.keys() and name.partition(".")[0] not in shards


def _unknown(inner: str) -> bool:
    """Bytes of which only a record elsewhere can tell."""
    return inner.endswith((".safetensors",)) and not inner.startswith("models/heads/")


def kinds_of(base: Base) -> list[str]:
    """All, also those of a moment alone."""
    return [*base.kinds(), "requests", "paused.json"]


def rows(base: Base, damages: Mapping[str, Callable[[bytes], bytes]]) -> list[Seen]:
    """Everything; minutes."""
    ways = itertools.product(kinds_of(base), damages.items(), (False, True))
    return [play(base, kind, damage, name, restarted=restarted) for kind, (name, damage), restarted in ways]


def table(found: list[Seen]) -> str:
    """Markdown: a line for all kinds of which the same came, the ways of damage together."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for kind in dict.fromkeys(seen.kind for seen in found):
        rows.setdefault(_cells([seen for seen in found if seen.kind == kind]), []).append(kind)
    lines = ["| damaged | doctor | status | served, running / restarted | learns on | healed |", "|" + "---|" * 6]
    return "\n".join([*lines, *(f"| {', '.join(kinds)} | {' | '.join(cells)} |" for cells, kinds in rows.items())])


def _cells(of: list[Seen]) -> tuple[str, ...]:
    answers = (_span([s.answers[:40] for s in of if s.restarted is r]) for r in (False, True))
    return (
        _share([s.doctor for s in of]), _told(of), " / ".join(answers), _share([s.learns for s in of]),
        _share([s.healed for s in of]),
    )  # fmt: skip


def _told(of: list[Seen]) -> str:
    """What is healed at the watcher's first look is in the log, and needs no line in `status`."""
    named = _share([s.status for s in of])
    silent = [s for s in of if not s.status]
    if not silent or not all(s.healed for s in silent):
        return named
    return "healed first" if len(silent) == len(of) else f"{named}, else healed first"


def _span(answers: list[str]) -> str:
    return ", ".join(dict.fromkeys(answers))


def _share(found: list[bool]) -> str:
    return "yes" if all(found) else "no" if not any(found) else f"{sum(found)} of {len(found)}"


def main() -> None:
    """Play all and print the table; 1 where a project paid for another's damage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verbose", action="store_true", help="a line for each case")
    parser.add_argument(
        "--hostile", action="store_true", help="six more ways: empty, deep, other types, null, 50 MB, huge number"
    )
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as folder:
        found = rows(build(Path(folder)), {**DAMAGES, **HOSTILE} if asked.hostile else DAMAGES)
    if asked.verbose:
        for seen in found:
            print(asdict(seen))
    print(table(found))
    bad = [seen for seen in found if not (seen.ready and seen.other)]
    print(f"{len(found)} cases, {len(bad)} in which the backend was not ready or the other project paid")
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
