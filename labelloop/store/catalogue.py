"""What is known of every image: content hash, duplicate group, split. Append-only shards, newest entry wins."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from labelloop.clock import now, parse
from labelloop.errors import NotFoundError
from labelloop.objects.compaction import Replaced, merged_name
from labelloop.objects.copies import copy_key, get_twice, heal, put_twice
from labelloop.objects.damage import UNREADABLE, Damage
from labelloop.objects.formats import Kind, as_object, reading, upgrade
from labelloop.objects.shards import Shards
from labelloop.objects.storage import ObjectStore
from labelloop.records.images import Bytes, ImageFacts, Split
from labelloop.records.json import canonical, digest, fields_of, to_dict

PREFIX = "catalogue/"
REPLACES = "replaces"  # in the first line of a shard that was made of others: their names, and when


class Catalogue:
    """One project's images. Shards are immutable: each is read once and kept."""

    def __init__(self, store: ObjectStore, damage: Damage | None = None) -> None:
        self._store = store
        self.damage = damage or Damage()
        self._shards = Shards(store, PREFIX, self.damage)
        self._newest = ""  # the last shard that was read, by name
        self._lock = threading.Lock()
        self.sizes: dict[str, int] = {}  # shard -> images
        self.replaced: dict[str, Replaced] = {}  # large shard -> those that it was made of
        self.images: dict[str, ImageFacts] = {}  # by uri
        self.splits: dict[str, Split] = {}  # of each duplicate group, as decided at its first sight

    def add(self, facts: Sequence[ImageFacts], shard: str) -> None:
        """Record images; ``shard`` is unique and sorts by time (see `labelloop.clock.stamp`)."""
        put_twice(self._store, _key(shard), b"\n".join(canonical(to_dict(f)) for f in facts))

    def merge(self, shards: Sequence[str]) -> str:
        """One large shard instead of these small ones, which stay until `drop`; its name."""
        parts = [self._read(_key(shard)).facts for shard in sorted(shards)]
        lines = [canonical(to_dict(f)) for part in parts for f in part]
        name = merged_name(list(shards), digest(b"\n".join(lines)))
        replaced = Replaced(tuple(shards), now())
        head = canonical({REPLACES: list(shards), "made_at": replaced.made_at})
        put_twice(self._store, _key(name), b"\n".join([head, *lines]))
        self.sizes[name], self.replaced[name] = len(lines), replaced
        self._shards.taken.add(_key(name))  # its name lies too far back to be listed soon
        return name

    def drop(self, shards: Sequence[str]) -> None:
        """Remove shards that a larger one has replaced."""
        for shard in shards:
            self._store.delete(_key(shard))
            self._store.delete(copy_key(_key(shard)))

    @property
    def lost(self) -> list[str]:
        """Shards that can be read neither as object nor as copy: what was decided of their images is unknown."""
        return [key for key in self.damage.keys(PREFIX) if _name(key) not in self.sizes]

    def heal(self) -> list[str]:
        """Write damaged shards again from their copies; returns the keys."""
        healed = [key for key in self.damage.keys(PREFIX) if heal(self._store, key, lambda raw, k=key: _fits(raw, k))]  # type: ignore[misc]
        for key in healed:
            self.damage.resolved(key)
        return healed

    def update(self) -> None:
        """Read the shards that were added since the last call."""
        for _ in self.updates():
            pass

    def updates(self) -> Iterator[set[str]]:
        """The same; images whose facts were read, shard by shard: those are not listed again after an error."""
        with self._lock:
            for key, data in self._shards.arrivals():
                yield self._take(key, data)
            for key in self._shards.vanished:
                self.sizes.pop(_name(key), None)

    def _take(self, key: str, data: bytes) -> set[str]:
        try:
            shard = self._read(key, data)
        except UNREADABLE as error:
            self._shards.refuse(key, error)
            return set()
        self.sizes[_name(key)] = len(shard.facts)
        if shard.replaces:
            self.replaced[_name(key)] = shard.replaces
            if self._shards.taken.issuperset(map(_key, shard.replaces.shards)):  # nothing new in it
                return set()
        touched = self._apply(shard.facts)
        if key < self._newest:  # its writer's clock is behind: what was read before it is newer all the same
            touched |= self._again(key)
        self._newest = max(self._newest, key)
        return touched

    def _read(self, key: str, raw: bytes | None = None) -> _CatalogueShard:
        """Whole or not at all, by its copy where it is damaged."""
        return get_twice(self._store, key, lambda data: shard_from(data, key), self.damage, raw=raw)

    def _again(self, after: str) -> set[str]:
        touched: set[str] = set()
        for key in sorted(k for k in self._shards.taken if k > after):
            with suppress(NotFoundError, *UNREADABLE):
                touched |= self._apply(self._read(key).facts)
        return touched

    def _apply(self, images: Sequence[ImageFacts]) -> set[str]:
        for facts in images:
            before = self.images.get(facts.uri)
            if before and before.group and facts.undecided and not facts.earlier:
                self.splits.pop(before.group, None)  # taken back, to be decided again
            self.images[facts.uri] = facts
            if facts.group:
                self.splits.setdefault(facts.group, facts.bucket)
        return {facts.uri for facts in images}


@dataclass(frozen=True, slots=True)
class _CatalogueShard:
    facts: list[ImageFacts]
    replaces: Replaced | None


def shard_from(data: bytes, key: str) -> _CatalogueShard:
    """CorruptObjectError, FormatError."""
    with reading(key):
        lines = [as_object(json.loads(line)) for line in data.splitlines() if line]
        head = lines.pop(0) if lines and REPLACES in lines[0] else None
        replaces = Replaced(tuple(map(str, head[REPLACES])), str(head["made_at"])) if head else None
        if replaces:
            parse(replaces.made_at)
        if not lines:
            raise ValueError("it is empty")
        return _CatalogueShard([_facts(upgrade(Kind.CATALOGUE, line)) for line in lines], replaces)


def _fits(raw: bytes, key: str) -> bool:
    try:
        shard_from(raw, key)
    except UNREADABLE:
        return False
    return True


def _facts(data: dict[str, Any]) -> ImageFacts:
    """By hand: lines come by the million."""
    earlier = tuple(Bytes(**fields_of(Bytes, past)) for past in data.get("earlier", ()))
    facts = ImageFacts(**{**fields_of(ImageFacts, data), "bucket": Split(data["bucket"]), "earlier": earlier})
    texts = (facts.uri, facts.etag, facts.sha256, facts.group, facts.phash, facts.middle, facts.twin,
             facts.problem or "",
             *(text for past in earlier for text in (past.sha256, past.until)))  # fmt: skip
    if not all(type(text) is str for text in texts):
        raise TypeError(f"{facts.uri!r}: a fact is no text")
    return facts


def _key(shard: str) -> str:
    return f"{PREFIX}{shard}.jsonl"


def _name(key: str) -> str:
    return key.removeprefix(PREFIX).removesuffix(".jsonl")
