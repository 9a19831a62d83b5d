"""The local copies of features stay small, and what is gone goes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from labelloop.config.settings import load_settings
from labelloop.errors import SettingsError
from labelloop.objects.cache import CachedFolder, bound, clear, copies, folder, mark_used, surplus
from labelloop.objects.storage import MemoryStore
from labelloop.store.features import FeatureStore
from retrain_worker.context import ProjectContext


def copy(root: Path, project: str, backbone: str, *, size: int, age_s: float = 0) -> Path:
    path = folder(root / project, backbone)
    path.mkdir(parents=True)
    file = path / "s1.safetensors"
    file.write_bytes(bytes(size))
    moment = time.time() - age_s
    os.utime(file, (moment, moment))
    os.utime(path, (moment, moment))
    return path


def test_the_longest_unused_goes_first_and_no_more_than_needed() -> None:
    folders = [CachedFolder(Path(name), 10, used) for name, used in (("a", 1), ("b", 3), ("c", 2), ("d", 4))]
    assert [c.path.name for c in surplus(folders, 25)] == ["c", "a"]
    assert surplus(folders, 40) == []


def test_what_was_used_last_stays_even_if_it_alone_is_too_large() -> None:
    folders = [CachedFolder(Path("large"), 100, 9), CachedFolder(Path("small"), 1, 1)]
    assert [c.path.name for c in surplus(folders, 10)] == ["small"]


def test_the_limit_counts_over_all_projects(tmp_path: Path) -> None:
    old = copy(tmp_path, "p1", "b1", size=100, age_s=100)
    new = copy(tmp_path, "p2", "b1", size=100, age_s=10)
    assert [c.path for c in bound(tmp_path, 150)] == [old]
    assert new.exists()
    assert not old.exists()


def test_use_keeps_a_copy(tmp_path: Path) -> None:
    used = copy(tmp_path, "p1", "b1", size=100, age_s=100)
    idle = copy(tmp_path, "p1", "b2", size=100, age_s=50)
    mark_used(used)
    mark_used(tmp_path / "not" / "there")
    assert [c.path for c in bound(tmp_path, 150)] == [idle]


def test_copies_of_what_is_gone_go(tmp_path: Path) -> None:
    dropped = copy(tmp_path, "p1", "gone", size=1)
    kept = copy(tmp_path, "p1", "kept", size=1, age_s=7200)
    other = copy(tmp_path, "p2", "gone", size=1)
    fresh = kept / "s2.safetensors"
    fresh.write_bytes(b"")
    clear(tmp_path, "p1", {"kept": {"s3"}})
    assert not dropped.exists()
    assert other.exists()
    assert list(kept.iterdir()) == [fresh]  # fetched a moment ago: it may be of a shard that was just written


def test_an_empty_cache_is_fine(tmp_path: Path) -> None:
    assert copies(tmp_path / "none") == []
    (tmp_path / "p" / "features").mkdir(parents=True)
    (tmp_path / "p" / "features" / "a-file").write_text("")
    assert bound(tmp_path, 1) == []


@pytest.mark.parametrize(("text", "size"), [("", 50_000_000_000), ("0.5", 500_000_000), ("2", 2_000_000_000)])
def test_the_size_is_given_in_gigabytes(text: str, size: int) -> None:
    assert load_settings({"LABELLOOP_CACHE_MAX_GB": text}).cache_max_bytes == size


@pytest.mark.parametrize("text", ["-1", "much", "1e9", "nan"])
def test_a_wrong_size_is_said(text: str) -> None:
    with pytest.raises(SettingsError, match="LABELLOOP_CACHE_MAX_GB"):
        load_settings({"LABELLOOP_CACHE_MAX_GB": text})


def test_a_worker_keeps_few_backbones_at_hand_and_the_cache_small(tmp_path: Path) -> None:
    store = MemoryStore()
    worker = ProjectContext(
        record=None, store=store, registry=None, snapshots=None, catalogue=None, runs=None, scores=None,  # type: ignore[arg-type]
        images=None, cache=tmp_path / "p", cache_max_bytes=250,  # type: ignore[arg-type]
    )  # fmt: skip
    for i in range(6):
        FeatureStore(store, f"b{i}", tmp_path).add("s1", ["u"], ["e"], np.ones((1, 4), dtype=np.float32))
        assert worker.features(f"b{i}").rows(["u"]).shape == (1, 4)
    assert list(worker._features) == ["b3", "b4", "b5"]
    assert len(list((tmp_path / "p" / "features").iterdir())) < 6
    assert worker.features("b0").rows(["u"]).shape == (1, 4)  # fetched anew
