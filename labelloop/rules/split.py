"""Image content in, split out: the same answer on every machine and for ever."""

from __future__ import annotations

import hashlib

from labelloop.config.shares import SplitShares
from labelloop.records.images import Split
from labelloop.records.json import digest


def group_of(data: bytes) -> str:
    """The duplicate group of an image that is like no other: the hash of its bytes."""
    return digest(data)


def split_of(group: str, shares: SplitShares) -> Split:
    """The split of a duplicate group. Salted, so that folds by the same hash stay independent."""
    place = unit(f"bucket:{group}")
    if place < shares.test:
        return Split.TEST
    return Split.AUDIT if place < shares.test + shares.audit else Split.TRAIN


def fold_of(group: str, folds: int) -> int:
    """The cross-validation fold of a duplicate group, in [0, folds)."""
    return int(unit(f"fold:{group}") * folds)


def shown_blind(group: str, share: float) -> bool:
    """Whether a train image is shown without its pre-label. Salted: it tells nothing of split, fold or quota.

    A larger share adds images and takes none away.
    """
    return unit(f"blind:{group}") < share


def unit(text: str) -> float:
    """A place in [0, 1) that only the text decides."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
