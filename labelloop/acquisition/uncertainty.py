"""Probabilities in, utility out: how much a label would tell. Higher is more. O(n x classes)."""

from __future__ import annotations

import numpy as np

from labelloop.head import Floats


def least_confidence(probabilities: Floats) -> Floats:
    """(n, classes) to (n,) in [0, 1): what is missing to certainty."""
    return np.asarray(1 - probabilities.max(axis=1), dtype=np.float32)


def margin(probabilities: Floats) -> Floats:
    """(n, classes) to (n,) in [0, 1]: 1 where the two best classes are level."""
    if probabilities.shape[1] < 2:
        return np.zeros(len(probabilities), dtype=np.float32)
    best = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.asarray(1 - (best[:, 1] - best[:, 0]), dtype=np.float32)


def entropy(probabilities: Floats) -> Floats:
    """(n, classes) to (n,) in [0, log classes], in nats."""
    safe = np.clip(probabilities, 1e-12, 1)
    return np.asarray(-(probabilities * np.log(safe)).sum(axis=1), dtype=np.float32)
