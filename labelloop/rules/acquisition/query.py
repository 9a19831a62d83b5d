"""What a strategy may look at: the images to choose from, what the model says of them, what is labelled already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from labelloop.records.arrays import Floats

Ints = NDArray[np.int64]
Read = Callable[[Ints], Floats]  # row numbers -> features; of a large pool only a part is ever read


TIES = 1  # salt: the lots of ties are not those of samples


def _nothing() -> Floats:
    return np.zeros((0, 0), dtype=np.float32)


def _nobody() -> Ints:
    return np.zeros(0, dtype=np.int64)


def top(utility: Floats, count: int) -> Ints:
    """Row numbers of the ``count`` most useful, in order; ties in row order. O(n + count log count)."""
    if count >= len(utility):
        return np.argsort(-utility, kind="stable").astype(np.int64)
    bound = -np.partition(-utility, count - 1)[count - 1] if count else np.inf
    rows = np.flatnonzero(utility >= bound)
    return rows[np.argsort(-utility[rows], kind="stable")][:count].astype(np.int64)


@dataclass(frozen=True, slots=True)
class Query:
    """One question: which of ``size`` images should be labelled next, in batches of ``batch``."""

    size: int
    read: Read
    probabilities: Floats | None = None  # (size, classes); may be a memory map; None: no model yet
    labelled: Floats = field(default_factory=_nothing)  # (m, features) of the images that are labelled already
    labels: Ints = field(default_factory=_nobody)  # (m,) columns of ``probabilities``; -1: a class the model lacks
    batch: int = 10
    seed: int = 0
    unseen: Floats | None = None  # (size,) how likely of a class that nobody has labelled yet; None: there is none

    @property
    def rows(self) -> Ints:
        """All row numbers."""
        return np.arange(self.size, dtype=np.int64)

    def best(self, utility: Floats, count: int) -> Ints:
        """The ``count`` most useful rows, in order; ties by lot: rows come by name, and so class folder by folder."""
        lots = np.random.default_rng((self.seed, TIES)).permutation(self.size)
        return lots[top(utility[lots], count)].astype(np.int64)

    def sample(self, most: int) -> Ints:
        """Up to so many row numbers, drawn evenly, ascending; the same for a seed."""
        if self.size <= most:
            return self.rows
        drawn = np.random.default_rng(self.seed).choice(self.size, most, replace=False)
        return np.sort(drawn).astype(np.int64)
