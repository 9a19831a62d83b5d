"""What is known of every image: content hash, duplicate group, bucket. Append-only shards, newest entry wins."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from labelloop.errors import NotFoundError
from labelloop.records import Bucket, ImageFacts, canonical, to_dict
from labelloop.shards import Shards
from labelloop.storage import ObjectStore

PREFIX = "catalogue/"
REPLACES = "replaces"  # in the first line of a shard that was made of others: their names


class Catalogue:
    """One project's images. Shards are immutable: each is read once and kept."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._shards = Shards(store, PREFIX)
        self._newest = ""  # the last shard that was read, by name
        self._lock = threading.Lock()
        self.images: dict[str, ImageFacts] = {}  # by uri
        self.buckets: dict[str, Bucket] = {}  # of each duplicate group, as decided at its first sight

    def add(self, facts: Sequence[ImageFacts], shard: str) -> None:
        """Record images; ``shard`` is unique and sorts by time (see `labelloop.clock.stamp`)."""
        lines = b"\n".join(canonical(to_dict(f)) for f in facts)
        self._store.put(f"{PREFIX}{shard}.jsonl", lines)

    def update(self) -> None:
        """Read the shards that were added since the last call."""
        for _ in self.updates():
            pass

    def updates(self) -> Iterator[set[str]]:
        """The same; images whose facts were read, shard by shard: those are not told again after an error."""
        with self._lock:
            for key, data in self._shards.arrivals():
                yield self._take(key, data)

    def _take(self, key: str, data: bytes) -> set[str]:
        lines = [json.loads(line) for line in data.splitlines() if line]
        replaced = [f"{PREFIX}{name}.jsonl" for name in lines[0][REPLACES]] if lines and REPLACES in lines[0] else []
        if replaced:
            lines = lines[1:]
            if self._shards.taken.issuperset(replaced):  # nothing new in it
                return set()
        touched = self._apply(lines)
        if key < self._newest:  # its writer's clock is behind: what was read before it is newer all the same
            touched |= self._again(key)
        self._newest = max(self._newest, key)
        return touched

    def _again(self, after: str) -> set[str]:
        touched: set[str] = set()
        for key in sorted(k for k in self._shards.taken if k > after):
            with suppress(NotFoundError):
                touched |= self._apply(_facts(self._store.get(key)))
        return touched

    def _apply(self, lines: Sequence[dict[str, Any]]) -> set[str]:
        for data in lines:
            facts = ImageFacts(**{**data, "bucket": Bucket(data["bucket"])})
            self.images[facts.uri] = facts
            if facts.group:
                self.buckets.setdefault(facts.group, facts.bucket)
        return {data["uri"] for data in lines}


def _facts(data: bytes) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in data.splitlines() if line)
    return [line for line in lines if REPLACES not in line]
