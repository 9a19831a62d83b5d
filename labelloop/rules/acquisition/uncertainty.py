"""Probabilities in, utility out: how much a label would tell. Higher is more. O(n x classes), a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from labelloop.records.arrays import Floats
from labelloop.rules.acquisition.query import Ints

CHUNK = 65_536  # rows looked at at a time: probabilities may be a memory map larger than the memory


def least_confidence(probabilities: Floats) -> Floats:
    """(n, classes) to (n,) in [0, 1): what is missing to certainty."""
    return _chunked(probabilities, lambda part: 1 - part.max(axis=1))


def margin(probabilities: Floats) -> Floats:
    """(n, classes) to (n,) in [0, 1]: 1 where the two best classes are level."""
    if probabilities.shape[1] < 2:
        return np.zeros(len(probabilities), dtype=np.float32)
    return _chunked(probabilities, _margin)


def entropy(probabilities: Floats) -> Floats:
    """(n, classes) to (n,) in [0, log classes], in nats."""
    return _chunked(probabilities, lambda part: -(part * np.log(np.clip(part, 1e-12, 1))).sum(axis=1))


def class_need(probabilities: Floats, labels: Ints, missed: Floats | None = None) -> Floats:
    """(n, classes) and the classes labelled so far to (n,) in [0, 1]: how likely a rare or a weak class is.

    ``missed`` (classes,) in (0, 1]: share of each class that the model does not recognise; None: all alike. A class's
    need is in proportion to it, and falls with the root of its labels, as the error of an estimate does.
    """
    counts = np.bincount(labels[labels >= 0], minlength=probabilities.shape[1])
    need = (1 / np.sqrt(counts + 1)).astype(np.float32)
    if missed is not None:
        need = need * missed
    return _chunked(probabilities, lambda part: part @ (need / need.max()))


def _margin(part: Floats) -> Floats:
    """By two maxima: a partition of every row takes four times as long."""
    part = np.array(part)
    rows, best = np.arange(len(part)), part.argmax(axis=1)
    first = part[rows, best]
    part[rows, best] = -np.inf
    return np.asarray(1 - (first - part.max(axis=1)), dtype=np.float32)


def _chunked(probabilities: Floats, utility: Callable[[Floats], Floats]) -> Floats:
    out = np.empty(len(probabilities), dtype=np.float32)
    for begin in range(0, len(out), CHUNK):
        out[begin : begin + CHUNK] = utility(probabilities[begin : begin + CHUNK])
    return out
