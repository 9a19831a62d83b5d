"""Features and catalogue: rows in any order, the newest row wins, a damaged shard is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from labelloop.errors import CorruptArtefactError
from labelloop.objects.storage import MemoryStore
from labelloop.records.images import ImageFacts, Split
from labelloop.store.catalogue import Catalogue
from labelloop.store.features import FeatureIndex, FeatureStore


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


def test_other_rows_under_a_shards_name_are_refused(tmp_path: Path) -> None:
    """Well-formed and of the same size: only the recorded hash tells."""
    store = MemoryStore()
    features = FeatureStore(store, "b", tmp_path)
    for name, value in (("1", 1), ("2", 2)):
        features.add(name, [f"image{name}"], ["e"], rows(value))
    store.put("features/b/rows/1.safetensors", store.get("features/b/rows/2.safetensors"))
    reader = FeatureStore(store, "b", tmp_path / "another machine")
    reader.update()
    np.testing.assert_array_equal(reader.rows(["image2"]), rows(2))
    with pytest.raises(CorruptArtefactError, match="hash that was recorded"):
        reader.rows(["image1"])


def test_catalogue_reads_what_was_added_since(tmp_path: Path) -> None:
    store = MemoryStore()
    reader, writer = Catalogue(store), Catalogue(store)
    writer.add([ImageFacts("a", "e", "h", "h", Split.TEST)], "1")
    reader.update()
    writer.add([ImageFacts("a", "e2", problem="cannot be read"), ImageFacts("b", "e", "h", "h")], "2")
    reader.update()
    assert reader.images["a"].problem == "cannot be read"
    assert reader.images["b"].bucket is Split.TRAIN


def test_the_bucket_of_a_group_is_that_of_its_first_image() -> None:
    catalogue = Catalogue(MemoryStore())
    catalogue.add([ImageFacts("a", "e", "h", "h", Split.TRAIN)], "1")
    catalogue.add([ImageFacts("b", "e", "h", "h", Split.TEST)], "2")
    catalogue.update()
    assert catalogue.splits == {"h": Split.TRAIN}


STAMP = "20260101T0000{:02d}000000-aaaaaa"


def test_images_come_by_name_also_as_more_arrive() -> None:
    store = MemoryStore()
    index = FeatureIndex(store, "b")
    writer = FeatureStore(store, "b", Path("none"))
    writer.add("1", ["c", "a"], ["e", "e"], rows(1, 2))
    index.update()
    assert index.ordered() == ["a", "c"]
    writer.add("2", ["b", "a"], ["e", "e"], rows(3, 4))
    index.update()
    assert index.ordered() == ["a", "b", "c"]


def test_small_shards_become_one_with_the_newest_rows(tmp_path: Path) -> None:
    store = MemoryStore()
    features = FeatureStore(store, "b", tmp_path)
    small = [STAMP.format(i) for i in range(4)]
    for i, shard in enumerate(small):
        features.add(shard, ["same", f"u{i}"], ["e", "e"], rows(i, 10 + i))
    newest = STAMP.format(9)
    features.add(newest, ["u1"], ["new"], rows(99))
    features.update()
    expected = features.rows(["same", "u0", "u1", "u2", "u3"])
    large = features.merge(small)
    assert small[-1] < large < newest
    for reader in (features, FeatureStore(store, "b", tmp_path / "other")):
        reader.update()
        np.testing.assert_array_equal(reader.rows(["same", "u0", "u1", "u2", "u3"]), expected)
        assert {p.shard for p in reader.index.places.values()} == {large, newest}
        assert reader.index.places["u1"].etag == "new"


def test_a_reader_survives_shards_that_were_replaced_and_removed(tmp_path: Path) -> None:
    store = MemoryStore()
    writer, reader = FeatureStore(store, "b", tmp_path / "w"), FeatureStore(store, "b", tmp_path / "r")
    small = [STAMP.format(i) for i in range(3)]
    for i, shard in enumerate(small):
        writer.add(shard, [f"u{i}"], ["e"], rows(i))
    writer.update()
    reader.update()  # has read the index, and no row
    writer.merge(small)
    writer.drop(small)
    np.testing.assert_array_equal(reader.rows(["u2", "u0"]), rows(2, 0))
    assert len(reader) == 3


def test_a_shard_that_is_lost_for_good_leaves_its_images_without_features(tmp_path: Path) -> None:
    store = MemoryStore()
    features = FeatureStore(store, "b", tmp_path)
    features.add(STAMP.format(1), ["a", "b"], ["e", "e"], rows(1, 2))
    features.add(STAMP.format(2), ["b"], ["e"], rows(3))
    features.update()
    features.drop([STAMP.format(1)])
    features.index.update(whole=True)
    assert "a" not in features
    np.testing.assert_array_equal(features.rows(["b"]), rows(3))
    assert features.index.ordered() == ["b"]


def test_more_shards_than_may_be_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelloop.store.features.OPEN_FILES", 3)
    features = FeatureStore(MemoryStore(), "b", tmp_path)
    for i in range(10):
        features.add(f"{i}", [f"u{i}"], ["e"], rows(i))
    features.update()
    np.testing.assert_array_equal(features.rows([f"u{i}" for i in range(10)]), rows(*range(10)))
    assert len(features._rows) == 3


def catalogues(store: MemoryStore) -> tuple[Catalogue, list[str]]:
    writer = Catalogue(store)
    small = [STAMP.format(i) for i in range(4)]
    for i, shard in enumerate(small):
        writer.add([ImageFacts("same", f"e{i}", f"g{i}", f"g{i}"), ImageFacts(f"u{i}", "e", "g", "g")], shard)
    writer.update()
    return writer, small


def test_a_merged_catalogue_says_the_same() -> None:
    store = MemoryStore()
    writer, small = catalogues(store)
    newest = STAMP.format(9)
    writer.add([ImageFacts("u1", "newest", "g", "g")], newest)
    large = writer.merge(small)
    assert small[-1] < large < newest
    for drop in (False, True):
        if drop:
            writer.drop(small)
        writer.update()
        behind = Catalogue(store)
        behind.update()
        assert behind.images == writer.images
        assert (behind.images["same"].etag, behind.images["u1"].etag) == ("e3", "newest")
    assert behind.sizes == {large: 8, newest: 1}
    again = behind.merge([large, newest])
    behind.drop([large, newest])
    other = Catalogue(store)
    other.update()
    assert other.images == writer.images
    assert other.sizes == {again: 9}


def test_an_entry_whose_writers_clock_is_behind_does_not_outrank_a_newer_one() -> None:
    store = MemoryStore()
    reader = Catalogue(store)
    Catalogue(store).add([ImageFacts("a", "new"), ImageFacts("b", "only")], STAMP.format(5))
    reader.update()
    Catalogue(store).add([ImageFacts("a", "old"), ImageFacts("c", "late")], STAMP.format(3))
    assert list(reader.updates()) == [{"a", "b", "c"}]
    assert {u: f.etag for u, f in reader.images.items()} == {"a": "new", "b": "only", "c": "late"}
