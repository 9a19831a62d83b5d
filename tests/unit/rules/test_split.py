from collections import Counter

import pytest

from labelloop.config.shares import SplitShares
from labelloop.records.images import Split
from labelloop.rules.split import fold_of, group_of, shown_blind, split_of

GROUPS = [group_of(str(i).encode()) for i in range(6000)]
BLIND = [55, 95, 97]
FOLDS = [3, 1, 2, 0, 4, 4, 4, 4, 4, 2, 4, 1]
BUCKETS = ["train", "train", "train", "train", "train", "audit", "train", "test", "train", "audit", "train", "train"]


def test_buckets_have_their_shares() -> None:
    found = Counter(split_of(g, SplitShares(0.10, 0.05)) for g in GROUPS)
    assert found[Split.TEST] / len(GROUPS) == pytest.approx(0.10, abs=0.015)
    assert found[Split.AUDIT] / len(GROUPS) == pytest.approx(0.05, abs=0.012)


def test_buckets_and_folds_never_change() -> None:
    """Written down once: a change here would let test images train."""
    shares = SplitShares()
    assert [fold_of(f"image-{i}", 5) for i in range(12)] == FOLDS
    assert [split_of(f"image-{i}", shares).value for i in range(12)] == BUCKETS


def test_same_bytes_share_bucket_and_fold() -> None:
    assert group_of(b"same") == group_of(b"same") != group_of(b"other")


def test_folds_are_even_and_independent_of_buckets() -> None:
    train = [g for g in GROUPS if split_of(g, SplitShares()) is Split.TRAIN]
    for groups in (GROUPS, train):
        counts = Counter(fold_of(g, 5) for g in groups)
        assert set(counts) == set(range(5))
        assert max(counts.values()) < 1.12 * min(counts.values())


def test_blind_images_have_their_share_and_stay_when_it_grows() -> None:
    few, more = ({g for g in GROUPS if shown_blind(g, share)} for share in (0.05, 0.2))
    assert few < more
    assert len(few) / len(GROUPS) == pytest.approx(0.05, abs=0.01)
    assert len(more) / len(GROUPS) == pytest.approx(0.2, abs=0.02)
    assert not any(shown_blind(g, 0.0) for g in GROUPS)
    assert all(shown_blind(g, 1.0) for g in GROUPS)


def test_which_images_are_blind_never_changes() -> None:
    """Queue and backend ask each for itself, in other releases, too: an image must not be un-blinded between them."""
    assert [i for i in range(100) if shown_blind(f"image-{i}", 0.05)] == BLIND


def test_blind_images_are_independent_of_buckets_and_folds() -> None:
    blind = [g for g in GROUPS if shown_blind(g, 0.3)]
    test = sum(split_of(g, SplitShares()) is Split.TEST for g in blind)
    assert test / len(blind) == pytest.approx(0.10, abs=0.02)
    counts = Counter(fold_of(g, 5) for g in blind)
    assert max(counts.values()) < 1.3 * min(counts.values())
