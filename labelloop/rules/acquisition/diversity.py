"""Features in, clusters and a typical-first order out; deterministic by seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelloop.records.arrays import Floats

CHUNK = 8192  # rows whose distances are held at a time
STEPS = 12

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Clusters:
    """``member`` (n,) cluster of each row; ``distance`` (n,) squared, to its centroid."""

    member: Ints
    distance: Floats
    centroids: Floats  # (clusters, features)


def k_means(features: Floats, clusters: int, *, seed: int = 0) -> Clusters:
    """Lloyd's algorithm from k-means++ starts. O(n x clusters x features) a step."""
    rng = np.random.default_rng(seed)
    centroids = _spread(features, min(clusters, len(features)), rng)
    for _ in range(STEPS):
        member, _ = _assign(features, centroids)
        moved = _means(features, member, centroids)
        if np.allclose(moved, centroids, rtol=0, atol=1e-5):
            break
        centroids = moved
    member, distance = _assign(features, centroids)
    return Clusters(member, distance, centroids)


def centroid_order(features: Floats, clusters: int, *, seed: int = 0) -> Ints:
    """Cold start: row numbers (n,), the one nearest to each centroid first, then the second nearest, and so on.

    Within a round the largest cluster comes first.
    """
    if len(features) == 0:
        return np.zeros(0, dtype=np.int64)
    found = k_means(features, clusters, seed=seed)
    sizes = np.bincount(found.member, minlength=len(found.centroids))
    by_distance = np.lexsort((found.distance, found.member))
    first = np.cumsum(sizes) - sizes
    turn = np.empty(len(features), dtype=np.int64)
    turn[by_distance] = np.arange(len(features)) - first[found.member[by_distance]]
    return np.asarray(np.lexsort((found.member, -sizes[found.member], turn)), dtype=np.int64)


def _spread(rows: Floats, clusters: int, rng: np.random.Generator) -> Floats:
    """k-means++: each further start is drawn in proportion to its squared distance from those before."""
    norms = np.einsum("ij,ij->i", rows, rows)
    picked = [int(rng.integers(len(rows)))]
    nearest = np.full(len(rows), np.inf, dtype=np.float32)
    while len(picked) < clusters:
        last = picked[-1]
        away = np.maximum(norms + norms[last] - 2 * (rows @ rows[last]), 0)
        nearest = np.minimum(nearest, away)
        nearest[picked] = 0
        total = np.cumsum(nearest, dtype=np.float64)
        place = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
        picked.append(min(place, len(rows) - 1))
    return rows[picked].copy()


def _assign(features: Floats, centroids: Floats) -> tuple[Ints, Floats]:
    member = np.empty(len(features), dtype=np.int64)
    distance = np.empty(len(features), dtype=np.float32)
    lengths = np.einsum("ij,ij->i", centroids, centroids)
    for begin in range(0, len(features), CHUNK):
        part = features[begin : begin + CHUNK]
        away = lengths - 2 * (part @ centroids.T)
        best = away.argmin(axis=1)
        own = away[np.arange(len(part)), best] + np.einsum("ij,ij->i", part, part)
        member[begin : begin + CHUNK], distance[begin : begin + CHUNK] = best, np.maximum(own, 0)
    return member, distance


def _means(rows: Floats, member: Ints, centroids: Floats) -> Floats:
    """An empty cluster keeps its centroid."""
    counts = np.bincount(member, minlength=len(centroids))
    hot = (member == np.arange(len(centroids))[:, None]).astype(np.float32)
    sums = hot @ rows
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centroids).astype(np.float32)
