"""Many small shards of features and catalogue in, few large ones out: less to list, to fetch and to open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

import structlog

from labelloop.errors import LabelloopError
from labelloop.objects.compaction import Replaced, droppable, mergeable
from labelloop.store.catalogue import Catalogue
from labelloop.store.features import FeatureStore

log = structlog.get_logger()


class Shelf(Protocol):
    """Where small shards lie; the catalogue, or the features under one backbone."""

    def merge(self, shards: Sequence[str]) -> str: ...

    def drop(self, shards: Sequence[str]) -> None: ...


def compact(catalogue: Catalogue, features: FeatureStore) -> int:
    """Merge what has rested long enough, remove what was replaced long ago; returns how many shards were merged.

    Two workers that do it at once make the same shard, or two that hold the same: readers take the later name.
    """
    index = features.index
    return _compact(catalogue, catalogue.sizes, catalogue.replaced) + _compact(features, index.sizes, index.replaced)


def compact_all(catalogue: Catalogue, features: FeatureStore) -> int:
    """The same until nothing is left to merge: after an import that was quicker than its shards could rest."""
    total = 0
    while True:
        catalogue.update()
        features.update()
        merged = compact(catalogue, features)
        total += merged
        if not merged:
            return total


def _compact(shelf: Shelf, sizes: Mapping[str, int], replaced: Mapping[str, Replaced]) -> int:
    now = datetime.now(UTC)
    done = {shard for r in replaced.values() for shard in r.shards}
    shards = mergeable({s: n for s, n in sizes.items() if s not in done}, now)
    try:
        if shards:
            name = shelf.merge(shards)
            log.info("merged shards", action="compact", shard=name, count=len(shards))
        shelf.drop(droppable(replaced, sizes.keys(), now))
    except LabelloopError as error:  # another worker was quicker, or a store is away: small shards serve as well
        log.warning("not merged", action="compact", reason=str(error))
        return 0
    return len(shards)
