"""What is known of every image: content hash, duplicate group, bucket. Append-only shards, newest entry wins."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from labelloop.clock import now
from labelloop.compaction import Replaced, merged_name
from labelloop.errors import NotFoundError
from labelloop.formats import Kind, upgrade
from labelloop.records import Bucket, Bytes, ImageFacts, canonical, digest, fields_of, to_dict
from labelloop.shards import Shards
from labelloop.storage import ObjectStore

PREFIX = "catalogue/"
REPLACES = "replaces"  # in the first line of a shard that was made of others: their names, and when


class Catalogue:
    """One project's images. Shards are immutable: each is read once and kept."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._shards = Shards(store, PREFIX)
        self._newest = ""  # the last shard that was read, by name
        self._lock = threading.Lock()
        self.sizes: dict[str, int] = {}  # shard -> images
        self.replaced: dict[str, Replaced] = {}  # large shard -> those that it was made of
        self.images: dict[str, ImageFacts] = {}  # by uri
        self.buckets: dict[str, Bucket] = {}  # of each duplicate group, as decided at its first sight

    def add(self, facts: Sequence[ImageFacts], shard: str) -> None:
        """Record images; ``shard`` is unique and sorts by time (see `labelloop.clock.stamp`)."""
        lines = b"\n".join(canonical(to_dict(f)) for f in facts)
        self._store.put(_key(shard), lines)

    def merge(self, shards: Sequence[str]) -> str:
        """One large shard instead of these small ones, which stay until `drop`; its name."""
        parts = [self._store.get(_key(shard)) for shard in sorted(shards)]
        lines = [line for part in parts for line in part.splitlines() if line and not _is_head(line)]
        name = merged_name(list(shards), digest(b"\n".join(lines)))
        replaced = Replaced(tuple(shards), now())
        head = canonical({REPLACES: list(shards), "made_at": replaced.made_at})
        self._store.put(_key(name), b"\n".join([head, *lines]))
        self.sizes[name], self.replaced[name] = len(lines), replaced
        self._shards.taken.add(_key(name))  # its name lies too far back to be listed soon
        return name

    def drop(self, shards: Sequence[str]) -> None:
        """Remove shards that a larger one has replaced."""
        for shard in shards:
            self._store.delete(_key(shard))

    def update(self) -> None:
        """Read the shards that were added since the last call."""
        for _ in self.updates():
            pass

    def updates(self) -> Iterator[set[str]]:
        """The same; images whose facts were read, shard by shard: those are not told again after an error."""
        with self._lock:
            for key, data in self._shards.arrivals():
                yield self._take(key, data)
            for key in self._shards.vanished:
                self.sizes.pop(_name(key), None)

    def _take(self, key: str, data: bytes) -> set[str]:
        lines = [json.loads(line) for line in data.splitlines() if line]
        head = lines.pop(0) if lines and REPLACES in lines[0] else None
        self.sizes[_name(key)] = len(lines)
        if head:
            self.replaced[_name(key)] = Replaced(tuple(head[REPLACES]), head["made_at"])
            if self._shards.taken.issuperset(map(_key, head[REPLACES])):  # nothing new in it
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
            found = fields_of(ImageFacts, upgrade(Kind.CATALOGUE, data))
            earlier = tuple(Bytes(**fields_of(Bytes, past)) for past in found.get("earlier", ()))
            facts = ImageFacts(**{**found, "bucket": Bucket(found["bucket"]), "earlier": earlier})
            self.images[facts.uri] = facts
            if facts.group:
                self.buckets.setdefault(facts.group, facts.bucket)
        return {data["uri"] for data in lines}


def _facts(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines() if line and not _is_head(line)]


def _is_head(line: bytes) -> bool:
    return REPLACES in json.loads(line)


def _key(shard: str) -> str:
    return f"{PREFIX}{shard}.jsonl"


def _name(key: str) -> str:
    return key.removeprefix(PREFIX).removesuffix(".jsonl")
