"""Rows of a `Space` in, rows that stand for the others out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelloop.records.arrays import Floats
from labelloop.rules.acquisition.query import Ints

NEAR = 10  # neighbours that set the radius of what one image stands for
STRETCH = 1.5  # of that radius
CHUNK = 1024

Bools = NDArray[np.bool_]


def radius_of(rows: Floats) -> float:
    """How far one image's say reaches: 1.5 times the median distance to the tenth neighbour. O(n² x components)."""
    near = min(NEAR, len(rows) - 1)
    if near < 1:
        return 1.0
    distances = [
        np.partition(_apart(rows[i : i + CHUNK], rows), near, axis=1)[:, near] for i in range(0, len(rows), CHUNK)
    ]
    return STRETCH * max(float(np.sqrt(np.median(np.concatenate(distances)))), 1e-3)


def herd(candidates: Floats, crowd: Floats, covered: Floats, weight: Floats, *, count: int, radius: float) -> Ints:
    """Up to ``count`` row numbers of ``candidates`` that together stand for most of ``crowd``, the best first.

    Greedy; ``covered`` (crowd,) in [0, 1] is how well each is stood for already, ``weight`` (crowd,) how much it
    counts. Gains only shrink, so that most are never computed again. O(candidates x crowd x components) (MaxHerding
    and Uncertainty Herding, arXiv 2412.20644).
    """
    likeness = np.exp(-_apart(candidates, crowd) / np.float32(radius**2))
    bound = np.maximum(likeness - covered, 0) @ weight
    bound[~np.isfinite(bound)] = 0  # rows that are no numbers stand for nothing
    picked: list[int] = []
    while len(picked) < min(count, len(candidates)):
        best = int(bound.argmax())
        if bound[best] <= 0:
            break  # everything is stood for
        gain = float(np.maximum(likeness[best] - covered, 0) @ weight)
        bound[best] = gain
        if gain >= float(bound.max()) - 1e-6:
            picked.append(best)
            covered = np.maximum(covered, likeness[best])
            bound[best] = -1.0
    return np.array(picked, dtype=np.int64)


def covered_by(crowd: Floats, labelled: Floats, radius: float) -> Floats:
    """(crowd,) in [0, 1]: how well labelled rows stand for each row."""
    if not len(labelled):
        return np.zeros(len(crowd), dtype=np.float32)
    nearest = np.concatenate([_apart(crowd[i : i + CHUNK], labelled).min(axis=1) for i in range(0, len(crowd), CHUNK)])
    return np.asarray(np.exp(-nearest / np.float32(radius**2)), dtype=np.float32)


def _apart(rows: Floats, others: Floats) -> Floats:
    """Squared distances (rows, others)."""
    lengths = np.einsum("ij,ij->i", rows, rows)[:, None] + np.einsum("ij,ij->i", others, others)
    return np.asarray(np.maximum(lengths - 2 * (rows @ others.T), 0), dtype=np.float32)
