"""What is known of every image: content hash, duplicate group, bucket. Append-only shards, newest entry wins."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence

from labelloop.records import Bucket, ImageFacts, canonical, to_dict
from labelloop.storage import ObjectStore

PREFIX = "catalogue/"


class Catalogue:
    """One project's images. Shards are immutable: each is read once and kept."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        self.images: dict[str, ImageFacts] = {}  # by uri
        self.buckets: dict[str, Bucket] = {}  # of each duplicate group, as decided at its first sight

    def add(self, facts: Sequence[ImageFacts], shard: str) -> None:
        """Record images; ``shard`` is unique and sorts by time (see `labelloop.clock.stamp`)."""
        lines = b"\n".join(canonical(to_dict(f)) for f in facts)
        self._store.put(f"{PREFIX}{shard}.jsonl", lines)

    def update(self) -> None:
        """Read the shards that were added since the last call."""
        with self._lock:
            for info in self._store.list(PREFIX):
                if info.key not in self._seen:
                    self._read(info.key)
                    self._seen.add(info.key)

    def _read(self, key: str) -> None:
        for line in self._store.get(key).splitlines():
            data = json.loads(line)
            facts = ImageFacts(**{**data, "bucket": Bucket(data["bucket"])})
            self.images[facts.uri] = facts
            if facts.group:
                self.buckets.setdefault(facts.group, facts.bucket)
