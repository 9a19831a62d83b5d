"""The table of strategies: one row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from labelloop.acquisition.select import Ints, Read, by_utility, cluster_margin
from labelloop.acquisition.uncertainty import entropy, least_confidence, margin
from labelloop.head import Floats


class Rank(Protocol):
    """Probabilities (n, classes) and a reader of features in, row numbers (n,) out, most useful first."""

    def __call__(self, probabilities: Floats, read: Read, *, batch: int, seed: int) -> Ints: ...


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to order the pool."""

    name: str
    rank: Rank
    cost: str  # n images, c classes, d features, b batch


def _scored(utility: Callable[[Floats], Floats]) -> Rank:
    def rank(probabilities: Floats, read: Read, *, batch: int, seed: int) -> Ints:
        return by_utility(utility(probabilities))

    return rank


def _cluster_margin(probabilities: Floats, read: Read, *, batch: int, seed: int) -> Ints:
    return cluster_margin(margin(probabilities), read, batch=batch, seed=seed)


def _random(probabilities: Floats, read: Read, *, batch: int, seed: int) -> Ints:
    return np.random.default_rng(seed).permutation(len(probabilities)).astype(np.int64)


DEFAULT = "cluster-margin"
STRATEGIES: Mapping[str, Strategy] = {
    row.name: row
    for row in (
        Strategy("cluster-margin", _cluster_margin, "O(n c + n log n + b² d)"),
        Strategy("margin", _scored(margin), "O(n c + n log n)"),
        Strategy("entropy", _scored(entropy), "O(n c + n log n)"),
        Strategy("least-confidence", _scored(least_confidence), "O(n c + n log n)"),
        Strategy("random", _random, "O(n)"),
    )
}
