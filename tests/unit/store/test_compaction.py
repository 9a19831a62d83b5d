"""What is merged: old and small shards, oldest first, where they are enough."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

import retrain_worker.compact
from labelloop.clock import LABEL_STUDIO_FORMAT
from labelloop.errors import StorageError
from labelloop.objects.compaction import FEWEST, KEPT, LARGE, REST, Replaced, droppable, mergeable
from labelloop.objects.storage import MemoryStore
from labelloop.records.images import ImageFacts
from labelloop.store.catalogue import Catalogue
from labelloop.store.features import FeatureStore
from retrain_worker.compact import compact, compact_all

NOW = datetime(2026, 1, 2, tzinfo=UTC)
OLD = NOW - timedelta(hours=1)


def named(at: datetime, number: int) -> str:
    return f"{at + timedelta(milliseconds=number):%Y%m%dT%H%M%S%f}-aaaaaa"


def shards(count: int, size: int = 64, at: datetime = OLD) -> dict[str, int]:
    return {named(at, i): size for i in range(count)}


def test_the_oldest_small_ones_make_one_large() -> None:
    sizes = shards(200)
    assert mergeable(sizes, NOW) == sorted(sizes)[: LARGE // 64]


def test_few_young_large_and_strange_ones_are_left_alone() -> None:
    assert mergeable(shards(FEWEST - 1, 200), NOW) == []
    assert mergeable(shards(FEWEST, 64), NOW) == []  # not half a large one
    assert mergeable(shards(200, at=NOW - REST + timedelta(seconds=1)), NOW) == []
    assert mergeable(shards(200, LARGE), NOW) == []
    assert mergeable({f"shard{i}": 64 for i in range(200)}, NOW) == []
    assert mergeable({}, NOW) == []


def test_merging_comes_to_an_end() -> None:
    sizes = shards(1000)
    rounds = 0
    while chosen := mergeable(sizes, NOW):
        sizes[chosen[-1] + "-x"] = sum(sizes.pop(name) for name in chosen)
        rounds += 1
    assert rounds == 16  # the last of 40 shards: more than half a large one
    assert sum(sizes.values()) == 64_000
    assert len(sizes) < 64


def test_what_was_replaced_goes_after_a_while() -> None:
    def made(ago: timedelta) -> str:
        return (NOW - ago).strftime(LABEL_STUDIO_FORMAT)

    replaced = {"x": Replaced(("1", "2"), made(KEPT * 2)), "y": Replaced(("3",), made(KEPT / 2))}
    assert droppable(replaced, {"2", "3"}, NOW) == ["2"]


def test_a_worker_compacts_both_stores_and_clears_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    catalogue, features = Catalogue(store), FeatureStore(store, "b", tmp_path)
    for name in shards(LARGE // 64 + 5):
        uris = [f"{name}/{i}" for i in range(64)]
        features.add(name, uris, ["e"] * 64, np.zeros((64, 2), dtype=np.float32))
        catalogue.add([ImageFacts(u, "e", u, u) for u in uris], name)
    catalogue.update()
    features.update()
    before = dict(catalogue.images), len(features)
    assert compact(catalogue, features) == 2 * LARGE // 64
    catalogue.update()
    features.update()
    assert compact(catalogue, features) == 0  # they are not merged twice
    monkeypatch.setattr("labelloop.objects.compaction.KEPT", timedelta(0))
    compact(catalogue, features)
    assert len(list(store.list("catalogue/"))) == len(list(store.list("features/b/rows/"))) == 6
    fresh, rows = Catalogue(store), FeatureStore(store, "b", tmp_path / "other")
    fresh.update()
    rows.update()
    assert (fresh.images, len(rows)) == before


def test_tidying_merges_all_that_there_is(tmp_path: Path) -> None:
    store = MemoryStore()
    catalogue, features = Catalogue(store), FeatureStore(store, "b", tmp_path)
    for i in range(3 * LARGE // 64):
        name = named(OLD + timedelta(minutes=i), 0)  # most lie far behind the newest, where nothing is listed again
        uris = [f"{name}/{i}" for i in range(64)]
        features.add(name, uris, ["e"] * 64, np.zeros((64, 2), dtype=np.float32))
        catalogue.add([ImageFacts(u, "e", u, u) for u in uris], name)
    assert compact_all(catalogue, features) == 2 * 3 * LARGE // 64
    assert len(features.index.places) == 3 * LARGE
    assert len({p.shard for p in features.index.places.values()}) == 3
    rows, fresh = FeatureStore(store, "b", tmp_path / "other"), Catalogue(store)
    fresh.update()
    rows.update()
    assert fresh.images == catalogue.images
    assert rows.index.places == features.index.places


def test_a_store_that_is_away_fails_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise StorageError("away")

    monkeypatch.setattr(retrain_worker.compact, "mergeable", lambda *_: ["x"])
    monkeypatch.setattr(FeatureStore, "merge", away)
    monkeypatch.setattr(Catalogue, "merge", away)
    assert compact(Catalogue(MemoryStore()), FeatureStore(MemoryStore(), "b", tmp_path)) == 0
