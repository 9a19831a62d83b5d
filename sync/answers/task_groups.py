"""What every task says of its image's group in, the record that workers read out. Nothing without such a field."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from labelloop.config.task_fields import Fields
from labelloop.errors import NotFoundError
from labelloop.objects.storage import ObjectStore
from labelloop.records.given import Said
from labelloop.records.json import digest
from labelloop.store.task_groups import SHARDS, dump, key_of, shard_of
from sync.pace import Pace

EVERY_S, SHARE = 0.5, 0.05  # shards grow with the project: a long import must not spend its time on them

Answers = dict[int, Said]  # by task


class TaskGroupKeeper:
    """One project's, in memory, and as it was written."""

    def __init__(self, fields: Fields, store: ObjectStore) -> None:
        self._fields, self._store = fields, store
        self._uris: dict[int, str] = {}
        self._shards: dict[str, dict[str, Answers]] = {shard: {} for shard in SHARDS}
        self._changed = set(SHARDS if fields else ())
        self._written: dict[str, str] = {}  # shard -> hash of what stands there
        self._pace, self._at = Pace(EVERY_S, SHARE), 0.0

    def put(self, task: int, uri: str, fields: Said) -> None:
        """A task as it is now."""
        if not self._fields:
            return
        if self._uris.get(task, uri) != uri:
            self.remove(task)
        shard = shard_of(uri)
        answers = self._shards[shard].setdefault(uri, {}) if uri else {}
        if uri and answers.get(task) != fields:
            answers[task] = fields
            self._uris[task] = uri
            self._changed.add(shard)

    def remove(self, task: int) -> None:
        """It is gone, or shows another image."""
        uri = self._uris.pop(task, "")
        if uri:
            images = self._shards[shard_of(uri)]
            del images[uri][task]
            if not images[uri]:
                del images[uri]
            self._changed.add(shard_of(uri))

    def turn(self) -> None:
        """Write what has changed, at a pace; what cannot be written now stays to be written."""
        if not self._changed or time.monotonic() < self._at:
            return
        began = time.monotonic()
        for shard in sorted(self._changed):
            self._write(shard)
            self._changed.discard(shard)
        self._at = time.monotonic() + self._pace.rest_s(time.monotonic() - began)

    def repair(self, keys: Iterable[str]) -> None:
        """Write damaged shards again; what nobody reads any more is deleted."""
        damaged = set(keys)
        for shard in SHARDS:
            if key_of(shard) in damaged:
                self._written[shard] = ""
                self._changed |= {shard} if self._fields else set()
        self._at = 0.0
        self.turn()
        if not self._fields:
            for key in damaged:
                self._store.delete(key)

    def _write(self, shard: str) -> None:
        images, key = self._shards[shard], key_of(shard)
        data = dump(self._fields, {uri: merged(answers) for uri, answers in images.items()})
        if shard not in self._written:
            try:
                self._written[shard] = digest(self._store.get(key))
            except NotFoundError:
                self._written[shard] = "" if images else digest(data)
        if self._written[shard] != digest(data):
            self._store.put(key, data)
            self._written[shard] = digest(data)


def merged(answers: Mapping[int, Said]) -> Said:
    """Of all tasks of one image: the group of the first one that names any, and the test set where one says so."""
    by_task = [answers[task] for task in sorted(answers)]
    return Said(next((one.group for one in by_task if one.group), ""), any(one.test for one in by_task))
