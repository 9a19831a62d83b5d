"""Utility and features in, an order out: what to label first."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from labelloop.acquisition.diversity import k_means
from labelloop.head import Floats

SHORTLIST = 5  # times the batch: the candidates among which a diverse batch is found

Ints = NDArray[np.int64]
Read = Callable[[Ints], Floats]  # row numbers -> features; only a shortlist is ever read


def by_utility(utility: Floats) -> Ints:
    """Row numbers (n,), most useful first; ties in row order. O(n log n)."""
    return np.argsort(-utility, kind="stable").astype(np.int64)


def cluster_margin(utility: Floats, read: Read, *, batch: int, seed: int = 0) -> Ints:
    """Row numbers (n,): among the most useful, one of each cluster in turn; then the rest by utility.

    The first is always the most useful of all. O(n log n + batch² x features) (arXiv 2107.14263).
    """
    ranked = by_utility(utility)
    short = ranked[: SHORTLIST * batch]
    if batch < 2 or len(short) < 3:
        return ranked
    return np.concatenate([_spread(short, read(short), batch=batch, seed=seed), ranked[len(short) :]])


def _spread(block: Ints, features: Floats, *, batch: int, seed: int) -> Ints:
    """Round robin over clusters; clusters in the order of their most useful row, rows by utility."""
    member = k_means(features, batch, seed=seed).member
    turn = np.zeros(len(block), dtype=np.int64)
    first = np.zeros(len(block), dtype=np.int64)
    for cluster in np.unique(member):
        mine = np.flatnonzero(member == cluster)
        turn[mine], first[mine] = np.arange(len(mine)), mine[0]
    return np.asarray(block[np.lexsort((first, turn))], dtype=np.int64)
