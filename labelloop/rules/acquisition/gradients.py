"""Probabilities and features in, a batch out whose labels would move the model most, and in different directions.

BADGE (arXiv 1906.03671) draws by k-means++ among the gradients of the last layer, one (classes x features) matrix for
each image. That matrix is the product of a residual and the features, so that lengths and distances follow from the
two factors: nothing of that size is ever held.
"""

from __future__ import annotations

import numpy as np

from labelloop.records.arrays import Floats
from labelloop.rules.acquisition.query import Ints


def badge(probabilities: Floats, features: Floats, *, count: int, seed: int = 0) -> Ints:
    """``count`` row numbers in the order they were drawn. O(count x n x (classes + features)), memory O(n)."""
    residual = probabilities.astype(np.float32, copy=True)
    residual[np.arange(len(residual)), residual.argmax(axis=1)] -= 1
    length = np.einsum("ij,ij->i", residual, residual) * np.einsum("ij,ij->i", features, features)
    rng = np.random.default_rng(seed)
    picked = [int(length.argmax())]
    nearest = np.full(len(length), np.inf, dtype=np.float32)
    while len(picked) < min(count, len(length)):
        last = picked[-1]
        inner = (residual @ residual[last]) * (features @ features[last])
        nearest = np.minimum(nearest, np.maximum(length + length[last] - 2 * inner, 0))
        nearest[last] = 0
        total = np.cumsum(nearest, dtype=np.float64)
        if total[-1] <= 0:
            break  # all that is left is like what was drawn
        picked.append(min(int(np.searchsorted(total, rng.random() * total[-1], side="right")), len(length) - 1))
    return np.array(list(dict.fromkeys(picked)), dtype=np.int64)
