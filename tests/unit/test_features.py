"""Features and catalogue: rows in any order, the newest row wins, a damaged shard is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from labelloop.catalogue import Catalogue
from labelloop.errors import CorruptArtefactError
from labelloop.features import FeatureIndex, FeatureStore
from labelloop.records import Bucket, ImageFacts
from labelloop.storage import MemoryStore


def rows(*values: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array([[v, v + 0.5] for v in values], dtype=np.float32)


def test_rows_come_in_the_order_they_are_asked_for_across_shards(tmp_path: Path) -> None:
    store = MemoryStore()
    FeatureStore(store, "b", tmp_path).add("1", ["a", "b"], ["e", "e"], rows(1, 2))
    FeatureStore(store, "b", tmp_path).add("2", ["c"], ["e"], rows(3))
    features = FeatureStore(store, "b", tmp_path / "other")
    features.update()
    np.testing.assert_array_equal(features.rows(["c", "a", "b", "a"]), rows(3, 1, 2, 1))


def test_the_newest_row_of_an_image_counts(tmp_path: Path) -> None:
    features = FeatureStore(MemoryStore(), "b", tmp_path)
    features.add("1", ["a"], ["old"], rows(1))
    features.add("2", ["a"], ["new"], rows(9))
    features.update()
    np.testing.assert_array_equal(features.rows(["a"]), rows(9))
    assert features.index.places["a"].etag == "new"


def test_backbones_do_not_mix(tmp_path: Path) -> None:
    store = MemoryStore()
    FeatureStore(store, "b1", tmp_path).add("1", ["a"], ["e"], rows(1))
    other = FeatureIndex(store, "b2")
    other.update()
    assert "a" not in other


def test_rows_are_mapped_not_read(tmp_path: Path) -> None:
    features = FeatureStore(MemoryStore(), "b", tmp_path)
    features.add("1", ["a"], ["e"], rows(1))
    features.update()
    features.rows(["a"])
    assert isinstance(features._rows["1"], np.memmap)


def test_a_shard_that_was_changed_is_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    features = FeatureStore(store, "b", tmp_path)
    features.add("1", ["a"], ["e"], rows(1))
    store.put("features/b/rows/1.safetensors", b"x" + store.get("features/b/rows/1.safetensors")[1:])
    features.update()
    with pytest.raises(CorruptArtefactError):
        features.rows(["a"])


def test_catalogue_reads_what_was_added_since(tmp_path: Path) -> None:
    store = MemoryStore()
    reader, writer = Catalogue(store), Catalogue(store)
    writer.add([ImageFacts("a", "e", "h", "h", Bucket.TEST)], "1")
    reader.update()
    writer.add([ImageFacts("a", "e2", problem="cannot be read"), ImageFacts("b", "e", "h", "h")], "2")
    reader.update()
    assert reader.images["a"].problem == "cannot be read"
    assert reader.images["b"].bucket is Bucket.TRAIN


def test_the_bucket_of_a_group_is_that_of_its_first_image() -> None:
    catalogue = Catalogue(MemoryStore())
    catalogue.add([ImageFacts("a", "e", "h", "h", Bucket.TRAIN)], "1")
    catalogue.add([ImageFacts("b", "e", "h", "h", Bucket.TEST)], "2")
    catalogue.update()
    assert catalogue.buckets == {"h": Bucket.TRAIN}
