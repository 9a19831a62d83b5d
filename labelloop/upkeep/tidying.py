"""One project's objects in; out goes what nothing needs any more. `retention` decides, this reads and deletes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog

from labelloop.clock import now as moment
from labelloop.clock import parse
from labelloop.config.project import Retention
from labelloop.errors import CorruptArtefactError, CorruptObjectError, FormatError, NotFoundError
from labelloop.objects.damage import UNREADABLE, Damage
from labelloop.objects.formats import Kind, load, read, reading, write
from labelloop.objects.storage import ObjectInfo, ObjectStore
from labelloop.records.json import digest
from labelloop.records.versions import LogEntry
from labelloop.remedies import remedy_of
from labelloop.store.features import FeatureIndex
from labelloop.store.registry import Registry
from labelloop.store.runs import RunStore
from labelloop.store.snapshots import SnapshotStore
from labelloop.store.studies import StudyStore, missing
from labelloop.upkeep.object_kinds import PHASES, YOUNG, ObjectKind, StoredObject, classify
from labelloop.upkeep.retention import Contents, Item, References, Retained, SweepPlan, kept_versions, mark, sweep

DONE = "gc.json"  # when the project was tidied last, and what went
READERS = 16
BATCH = 100  # version records removed under one hold of the deploy lease: seconds
Report = Callable[[str, int, int], None]  # what, done, of

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Tidied:
    """The last time."""

    at: str
    removed: Mapping[str, Sequence[int]]  # what -> (objects, bytes)


class Tidier:
    """Tidies one project. Safe beside everything else that works on it, and safe to kill."""

    def __init__(
        self, store: ObjectStore, registry: Registry, runs: RunStore, policy: Retention,
        *, now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self._store, self._registry, self._runs, self._policy, self._now = store, registry, runs, policy, now
        self._shards: dict[str, frozenset[str] | None] = {}  # snapshot -> its shards; None: unknown
        self._rows: dict[str, frozenset[str]] = {}  # backbone -> shards with a row that counts

    def decide(self) -> SweepPlan:
        """What would stay and what would go now; removes nothing."""
        refs, objects = self._read()
        return self._decide(refs, objects, ())

    def tidy(self, report: Report = lambda _what, _done, _of: None) -> tuple[Item, ...]:
        """Remove what nothing needs; returns what went.

        Each phase is decided by what is there then: what was named meanwhile stays.
        """
        refs, objects = self._read()
        removed = self._forget_versions(refs, objects)
        for i, phase in enumerate(PHASES[1:], 1):
            refs, objects = self._read()
            decision = self._decide(refs, objects, [what for before in PHASES[:i] for what in before])
            items = [item for item in decision.remove if item.what in phase]
            self._delete(items, report)
            removed += items
        self._store.put(DONE, write(Kind.TIDY, {"at": moment(), "removed": counts(removed)}))
        return tuple(removed)

    # --- reading

    def _read(self) -> tuple[References, list[StoredObject]]:
        """References before the listing: whatever they name is in it, or is gone already."""
        damage = Damage()
        try:
            contents = self._read_all(damage)
        except CorruptObjectError as error:
            damage.note(error.key, error)
        if damage.all():
            raise CorruptArtefactError(
                f"{len(damage.all())} records cannot be read ({', '.join(damage.keys()[:3])}), so it is unknown "
                f"what is still needed: nothing was removed. {remedy_of(damage.keys()[0])}; `labelloop gc "
                f"--damaged` sets "
                "aside what cannot be brought back"
            )
        return contents

    def _read_all(self, damage: Damage) -> tuple[References, list[StoredObject]]:
        """Read afresh: what a process had read before it was damaged is not taken for what is there."""
        latest = SnapshotStore(self._store).latest()
        registry, runs = self._registry.again(damage), RunStore(self._store, damage).all()
        deployments, versions = registry.deployments(), registry.versions()
        initial = registry.initial_backbone()
        objects = classify(self._store.list(""))
        names = [held.name for held in objects if held.what is ObjectKind.BACKBONE]
        backbones = {name: registry.backbone(name).snapshot for name in names}
        newer = [d for d in damage.all() if d.newer]
        if newer:
            raise FormatError(newer[0].reason)
        return References(
            versions, deployments, backbones, initial.id if initial else None, runs,
            latest.snapshot if latest else None, self._searches(damage),
        ), objects  # fmt: skip

    def _searches(self, damage: Damage) -> list[str]:
        studies = StudyStore(self._store, damage)
        return [s.snapshot for s in studies.all() if missing(s, studies.trials(s.name))]

    def _decide(self, refs: References, objects: Sequence[StoredObject], settled: Collection[ObjectKind]) -> SweepPlan:
        now = self._now()
        kept = mark(refs, objects, self._policy, now, settled=settled)
        heads = {v.head_key for v in refs.versions if v.name in kept.versions}
        rows = _indexed(objects) if ObjectKind.INDEX in settled else {b: self._used(b) for b in kept.features}
        return sweep(objects, kept, Contents(heads, self._kept_shards(kept, objects), rows), now)

    def _kept_shards(self, kept: Retained, objects: Sequence[StoredObject]) -> set[str]:
        """Of all snapshots that stay; every one there is where a manifest is damaged."""
        unread = [name for name in kept.snapshots if name not in self._shards]
        with ThreadPoolExecutor(READERS) as pool:
            self._shards.update(zip(unread, pool.map(self._shards_of, unread), strict=True))
        reached: set[str] = set()
        for name in kept.snapshots:
            shards = self._shards[name]
            if shards is None:
                return {held.name for held in objects if held.what is ObjectKind.SHARD}
            reached |= shards
        return reached

    def _shards_of(self, snapshot: str) -> frozenset[str] | None:
        try:
            raw = self._store.get(f"snapshots/manifests/{snapshot}.json")
        except NotFoundError:  # only its name is left, in a run record
            return frozenset()
        if digest(raw)[:32] == snapshot:
            return frozenset(read(Kind.SNAPSHOT, raw, snapshot)["shards"].values())
        log.warning("a manifest is damaged: no snapshot shard is removed", action="tidy", snapshot=snapshot)
        return None

    def _used(self, backbone: str) -> frozenset[str]:
        """Shards that counted a day ago: a reader of one that was replaced since still finds it."""
        if backbone not in self._rows:
            index = FeatureIndex(_AsOf(self._store, self._now() - YOUNG), backbone)
            index.update()
            self._rows[backbone] = frozenset(place.shard for place in index.places.values())
        return self._rows[backbone]

    # --- removing

    def _forget_versions(self, refs: References, objects: Sequence[StoredObject]) -> list[Item]:
        """Under the deploy lease: a version that is promoted at this moment stays, or cannot be promoted."""
        decided = {item.key: item for item in self._decide(refs, objects, ()).remove if item.what is ObjectKind.VERSION}
        items = {held.name: decided[held.info.key] for held in objects if held.info.key in decided}
        young = [held.name for held in objects if held.what is ObjectKind.VERSION and held.is_young(self._now())]
        names, forgotten = list(items), list[str]()
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]

            def choose(deployments: Sequence[LogEntry], batch: Sequence[str] = batch) -> list[str]:
                newest = replace(refs, deployments=deployments)
                return [n for n in batch if n not in kept_versions(newest, young, self._policy, self._now())]

            forgotten += self._registry.forget(choose)
        return [items[name] for name in forgotten]

    def _delete(self, items: Sequence[Item], report: Report) -> None:
        with ThreadPoolExecutor(READERS) as pool:
            for done, _ in enumerate(pool.map(lambda item: self._store.delete(item.key), items), 1):
                report("remove", done, len(items))


def _indexed(objects: Sequence[StoredObject]) -> dict[str, set[str]]:
    shards: dict[str, set[str]] = {}
    for held in objects:
        if held.what is ObjectKind.INDEX:
            backbone, shard = held.names
            shards.setdefault(backbone, set()).add(shard)
    return shards


class _AsOf:
    """A store as it was: what was written later is not listed."""

    def __init__(self, store: ObjectStore, until: datetime) -> None:
        self._store, self._until = store, until
        self.get, self.get_with_etag, self.exists = store.get, store.get_with_etag, store.exists
        self.put, self.swap, self.delete = store.put, store.swap, store.delete

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        return (i for i in self._store.list(prefix, start_after=start_after) if i.modified <= self._until)


def last_tidied(store: ObjectStore) -> Tidied | None:
    """When a project was tidied last, or None: never, or unknown."""
    try:
        tidied = load(Kind.TIDY, store.get(DONE), Tidied, DONE)
        with reading(DONE):
            parse(tidied.at)
    except (*UNREADABLE, NotFoundError):
        return None
    return tidied


def counts(items: Sequence[Item]) -> dict[str, list[int]]:
    """What -> [objects, bytes], in the order in which they are removed."""
    by_kind = {what: [item.size for item in items if item.what is what] for phase in PHASES for what in phase}
    return {what.value: [len(sizes), sum(sizes)] for what, sizes in by_kind.items() if sizes}
