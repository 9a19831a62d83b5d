"""Annotations in, immutable content-addressed shards and a manifest out."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

from labelloop.errors import CorruptObjectError, NotFoundError
from labelloop.limits import inflated
from labelloop.objects.damage import UNREADABLE, Damage
from labelloop.objects.formats import Kind, load, read, reading, write
from labelloop.objects.storage import ObjectStore
from labelloop.records.json import canonical, digest
from labelloop.records.snapshots import Latest, Snapshot
from labelloop.records.tasks import Task, task_from, task_line

SHARDS = 64  # k changed tasks rewrite at most k of them
LEVEL = 3  # of compression: at most a few per cent larger than 9, and several times quicker
LATEST = "snapshots/latest.json"
CHANGED = "it was changed after it was written"


@dataclass(slots=True)
class _FrozenShard:
    """One shard as it was frozen last."""

    lines: dict[int, bytes]  # task id -> its canonical form
    name: str = ""


class SnapshotStore:
    """One project's snapshots. Shards already written are never written again."""

    def __init__(self, store: ObjectStore, damage: Damage | None = None) -> None:
        self._store = store
        self.damage = damage or Damage()
        self._frozen: dict[int, _FrozenShard] = {}  # shard number -> its newest content
        self._newest: Snapshot | None = None
        self._shards: dict[int, tuple[str, tuple[Task, ...]]] = {}  # of each shard what was loaded last
        self._damaged: set[str] = set()  # keys whose bytes are not what they should be: written again when they can be

    def freeze(self, tasks: Iterable[Task]) -> Snapshot:
        """Write what changed and the manifest; idempotent. Tasks without annotations are left out."""
        kept = {t.id: t for t in tasks if t.annotations}
        if self._newest is None:
            self._frozen = {}  # the last write broke off in the middle
        before = self._newest.tasks if self._newest else {}
        moved = [i for i, task in kept.items() if before.get(i) != task] + [i for i in before if i not in kept]
        return self._write(kept, moved if not self._damaged else [*kept, *before])

    def advance(self, tasks: Mapping[int, Task], moved: Collection[int]) -> Snapshot:
        """The same as `freeze`, of what was frozen last and the tasks that moved since: costs as much as moved."""
        if self._newest is None or self._damaged:
            return self.freeze(tasks.values())
        kept = dict(self._newest.tasks)
        for number in moved:
            task = tasks.get(number)
            if task and task.annotations:
                kept[number] = task
            else:
                kept.pop(number, None)
        return self._write(kept, moved)

    def _write(self, kept: Mapping[int, Task], moved: Iterable[int]) -> Snapshot:
        parts: dict[int, list[int]] = {}
        for number in moved:
            parts.setdefault(number % SHARDS, []).append(number)
        self._newest = None  # until all of it is written
        for shard, numbers in parts.items():
            self._freeze_shard(shard, {i: kept.get(i) for i in numbers})
        names = {str(i): self._frozen[i].name for i in sorted(self._frozen)}
        manifest = write(Kind.SNAPSHOT, {"shards": names})
        name = digest(manifest)[:32]
        self._put(_manifest_key(name), manifest)
        self._newest = Snapshot(name, kept)
        return self._newest

    def load(self, name: str) -> Snapshot:
        """One snapshot; CorruptObjectError where a shard's bytes are not what the manifest names."""
        try:
            tasks = {task.id: task for index, shard in self._parts(name) for task in self._read(index, shard)}
        except UNREADABLE as error:
            if isinstance(error, CorruptObjectError):
                self._damaged.add(error.key)
                self.damage.note(error.key, error)
            raise
        return Snapshot(name, tasks)

    def _parts(self, name: str) -> list[tuple[int, str]]:
        """(number, name) of each shard."""
        key = _manifest_key(name)
        raw = self._store.get(key)
        with reading(key):
            if digest(raw)[:32] != name:
                raise ValueError(CHANGED)
            return [(int(index), str(shard)) for index, shard in read(Kind.SNAPSHOT, raw, key)["shards"].items()]

    def repair(self, keys: Collection[str] | None = None) -> list[str]:
        """Write again what cannot be read of the snapshot that was frozen last: its truth is here; returns the keys.

        ``keys``: only these are looked at.
        """
        if self._newest is None:
            return []
        seals = [(key, fits) for key, fits in self._seals() if keys is None or key in keys]
        wrong = [key for key, fits in seals if not self._holds(key, fits)]
        self._damaged |= set(wrong)
        if wrong:
            self.freeze(self._newest.tasks.values())
        return wrong

    def _seals(self) -> Iterator[tuple[str, Callable[[bytes], bool]]]:
        assert self._newest is not None
        name = self._newest.id
        yield _manifest_key(name), lambda raw: digest(raw)[:32] == name
        for shard in list(self._frozen.values()):
            yield _shard_key(shard.name), lambda raw, s=shard: bool(_inflate(raw, s.name))  # type: ignore[misc]

    def _holds(self, key: str, fits: Callable[[bytes], bool]) -> bool:
        try:
            return fits(self._store.get(key))
        except (CorruptObjectError, NotFoundError):
            return False

    def latest(self) -> Latest | None:
        """The newest ref, or None before the first snapshot; CorruptObjectError."""
        try:
            ref = load(Kind.LATEST, self._store.get(LATEST), Latest, LATEST)
        except NotFoundError:
            return None
        except UNREADABLE as error:
            self.damage.note(LATEST, error)
            raise
        self.damage.resolved(LATEST)
        return ref

    def newest(self) -> Snapshot | None:
        """The newest one that can be read, to be shown; None where there is none."""
        try:
            latest = self.latest()
            return self.load(latest.snapshot) if latest else None
        except (*UNREADABLE, NotFoundError):
            return None

    def set_latest(self, ref: Latest) -> None:
        """Move the ref; only the watcher that holds the lease does this."""
        self._store.put(LATEST, write(Kind.LATEST, asdict(ref)))
        self.damage.resolved(LATEST)

    def _freeze_shard(self, index: int, moved: Mapping[int, Task | None]) -> None:
        """Write one shard with these tasks changed, or taken out (None)."""
        before = self._frozen.get(index)
        lines = {**(before.lines if before else {})}
        for number, task in moved.items():
            if task is None:
                lines.pop(number, None)
            else:
                lines[number] = canonical(task_line(task))
        if not lines:
            self._frozen.pop(index, None)
            return
        text = b"\n".join(lines[i] for i in sorted(lines))
        name = digest(text)[:32]
        if before is None or before.name != name or self._damaged:
            self._put(_shard_key(name), lambda: gzip.compress(text, LEVEL, mtime=0))
        self._frozen[index] = _FrozenShard(lines, name)

    def _put(self, key: str, data: bytes | Callable[[], bytes]) -> None:
        """Write where nothing is, or something that was damaged."""
        if key in self._damaged or not self._store.exists(key):
            self._store.put(key, data() if callable(data) else data)
            self._damaged.discard(key)
            self.damage.resolved(key)

    def _read(self, index: int, name: str) -> tuple[Task, ...]:
        loaded = self._shards.get(index)
        if loaded and loaded[0] == name:
            return loaded[1]
        text = _inflate(self._store.get(_shard_key(name)), name)
        with reading(_shard_key(name)):
            tasks = tuple(task_from(json.loads(line)) for line in text.splitlines() if line)
        self._shards[index] = (name, tasks)
        return tasks


def _inflate(data: bytes, name: str) -> bytes:
    with reading(_shard_key(name)):
        text = inflated(data)
        if digest(text)[:32] != name:
            raise ValueError(CHANGED)
    return text


def _manifest_key(name: str) -> str:
    return f"snapshots/manifests/{name}.json"


def _shard_key(name: str) -> str:
    return f"snapshots/shards/{name}.jsonl.gz"
