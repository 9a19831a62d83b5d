"""Batches that are under way: which images, shard by shard, and what was said of them. All in the bucket."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence

from labelloop.limits import inflated
from labelloop.objects.formats import Kind, load, reading, typed, write
from labelloop.objects.storage import ObjectStore
from labelloop.records.batches import Batch, Guess
from labelloop.records.json import canonical, to_dict

PREFIX = "batches/"
Image = tuple[str, str]  # address and ETag; an empty ETag: not known


class BatchStore:
    """One project's. A batch is there once its record is; its shards are written before."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def add(self, batch: Batch, shards: Sequence[Sequence[Image]]) -> None:
        """Record a batch with its images."""
        for number, images in enumerate(shards):
            self._store.put(_key(batch.id, f"images/{number}"), _packed([list(i) for i in images]))
        self._store.put(_record(batch.id), write(Kind.BATCH, to_dict(batch)))

    def get(self, name: str) -> Batch:
        """NotFoundError where there is none; CorruptObjectError."""
        return load(Kind.BATCH, self._store.get(_record(name)), Batch, _record(name))

    def images(self, name: str, shard: int) -> list[Image]:
        """Of one shard; NotFoundError, CorruptObjectError."""
        key = _key(name, f"images/{shard}")
        raw = self._store.get(key)
        with reading(key):
            return [(str(uri), str(etag)) for uri, etag in json.loads(inflated(raw))]

    def keep(self, name: str, shard: int, guesses: Sequence[Guess]) -> None:
        """One shard is done: the same again where two workers did it."""
        self._store.put(_key(name, f"said/{shard}"), _packed([to_dict(g) for g in guesses]))

    def said(self, name: str, shard: int) -> list[Guess]:
        """NotFoundError until the shard is done; CorruptObjectError."""
        key = _key(name, f"said/{shard}")
        raw = self._store.get(key)
        with reading(key):
            return [typed(Guess, line) for line in json.loads(inflated(raw))]

    def done(self, name: str) -> set[int]:
        """The shards that are."""
        prefix = f"{PREFIX}{name}/said/"
        return {int(key) for info in self._store.list(prefix) if (key := info.key.removeprefix(prefix)[:-8]).isdigit()}

    def drop(self, name: str) -> None:
        """It was written where it was wanted. The record goes last: until then, it can be taken up again."""
        for info in list(self._store.list(f"{PREFIX}{name}/")):
            if info.key != _record(name):
                self._store.delete(info.key)
        self._store.delete(_record(name))


def _record(name: str) -> str:
    return f"{PREFIX}{name}/batch.json"


def _key(name: str, rest: str) -> str:
    return f"{PREFIX}{name}/{rest}.json.gz"


def _packed(data: object) -> bytes:
    return gzip.compress(canonical(data), mtime=0)
