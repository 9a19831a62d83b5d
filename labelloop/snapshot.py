"""Annotations in, immutable content-addressed shards and a manifest out."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from labelloop.errors import CorruptArtefactError, NotFoundError
from labelloop.records import Task, canonical, digest, task_from, to_dict
from labelloop.storage import ObjectStore

SHARDS = 64  # k changed tasks rewrite at most k of them
LATEST = "snapshots/latest.json"


@dataclass(frozen=True, slots=True)
class Latest:
    """The small mutable ref: which snapshot is newest, and how far the change feed was read."""

    snapshot: str
    sequence: int
    cursor: str  # `updated_at` of the newest change seen
    frozen_at: str
    annotations: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All annotated tasks at one moment. ``id`` is the manifest's hash."""

    id: str
    tasks: Mapping[int, Task]

    def labels(self) -> dict[str, str]:
        """Uri -> the class that counts."""
        return {t.uri: label for t in self.tasks.values() if (label := t.label) is not None}


class SnapshotStore:
    """One project's snapshots. Shards already written are never written again."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._shards: dict[int, tuple[str, tuple[Task, ...]]] = {}  # newest content of each shard
        self._damaged: set[str] = set()  # keys whose bytes are not what they should be: written again when they can be

    def freeze(self, tasks: Iterable[Task]) -> Snapshot:
        """Write what changed and the manifest; idempotent. Tasks without annotations are left out."""
        kept = {t.id: t for t in tasks if t.annotations}
        parts: dict[int, list[Task]] = {}
        for task in kept.values():
            parts.setdefault(task.id % SHARDS, []).append(task)
        names = {str(i): self._shard(i, parts[i]) for i in sorted(parts)}
        manifest = canonical({"format": 1, "shards": names})
        name = digest(manifest)[:32]
        key = f"snapshots/manifests/{name}.json"
        if key in self._damaged or not self._store.exists(key):
            self._store.put(key, manifest)
            self._damaged.discard(key)
        return Snapshot(name, kept)

    def load(self, name: str) -> Snapshot:
        """One snapshot; CorruptArtefactError where a shard's bytes are not what the manifest names."""
        raw = self._store.get(f"snapshots/manifests/{name}.json")
        if digest(raw)[:32] != name:
            self._damaged.add(f"snapshots/manifests/{name}.json")
            raise CorruptArtefactError(f"the manifest of snapshot {name} was changed after it was written")
        tasks: dict[int, Task] = {}
        for index, shard in json.loads(raw)["shards"].items():
            for task in self._read(int(index), shard):
                tasks[task.id] = task
        return Snapshot(name, tasks)

    def latest(self) -> Latest | None:
        """The newest ref, or None before the first snapshot."""
        try:
            return Latest(**json.loads(self._store.get(LATEST)))
        except NotFoundError:
            return None

    def set_latest(self, ref: Latest) -> None:
        """Move the ref; only the watcher that holds the lease does this."""
        self._store.put(LATEST, canonical(asdict(ref)))

    def _shard(self, index: int, tasks: list[Task]) -> str:
        ordered = tuple(sorted(tasks, key=lambda t: t.id))
        known = self._shards.get(index)
        if known and known[1] == ordered:
            return known[0]
        text = b"\n".join(canonical(to_dict(t)) for t in ordered)
        name = digest(text)[:32]
        key = _shard_key(name)
        if key in self._damaged or not self._store.exists(key):
            self._store.put(key, gzip.compress(text, mtime=0))
            self._damaged.discard(key)
        self._shards[index] = (name, ordered)
        return name

    def _read(self, index: int, name: str) -> tuple[Task, ...]:
        known = self._shards.get(index)
        if known and known[0] == name:
            return known[1]
        try:
            text = _inflate(self._store.get(_shard_key(name)), name)
        except CorruptArtefactError:
            self._damaged.add(_shard_key(name))
            raise
        tasks = tuple(task_from(json.loads(line)) for line in text.splitlines() if line)
        self._shards[index] = (name, tasks)
        return tasks


def _inflate(data: bytes, name: str) -> bytes:
    try:
        text = gzip.decompress(data)
    except (OSError, EOFError) as error:
        raise CorruptArtefactError(f"snapshot shard {name} cannot be unpacked: {error}") from error
    if digest(text)[:32] != name:
        raise CorruptArtefactError(f"snapshot shard {name} was changed after it was written")
    return text


def _shard_key(name: str) -> str:
    return f"snapshots/shards/{name}.jsonl.gz"
