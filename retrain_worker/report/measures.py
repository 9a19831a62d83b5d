"""Probabilities and true classes in, every figure of one arm out. Numpy only, no state.

Macro figures are means over the classes that have test labels, as scikit-learn has them with ``zero_division=0``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelloop.records.arrays import Floats
from labelloop.rules.intervals import Interval
from retrain_worker.heads.calibration import BINS, expected_calibration_error
from retrain_worker.heads.logistic import log_loss
from retrain_worker.intervals import wilson

Ints = NDArray[np.int64]
TOP = (2, 5)


@dataclass(frozen=True, slots=True)
class ClassMeasures:
    """One class. Shares in [0, 1]; None where there is nothing to divide by."""

    name: str
    known: bool  # whether the arm can answer with it
    support: int  # test labels
    predicted: int  # answers
    precision: float | None  # of the answers, those that are right
    recall: Interval | None  # of the labels, those that are found, with Wilson bounds
    f1: float | None


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of like confidence; ``confidence`` and ``accuracy`` are means, None where there is no answer."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Measures:
    """One arm on the test images."""

    n: int
    accuracy: Interval  # Wilson
    balanced_accuracy: float  # mean recall
    macro_precision: float
    macro_f1: float
    log_loss: float  # nats, each at most that of one in a million
    ece: float  # expected calibration error, equal-width bins
    top: tuple[tuple[int, float], ...]  # (k, share of images whose class is among the k likeliest)
    classes: tuple[ClassMeasures, ...]
    confusion: tuple[tuple[int, ...], ...]  # rows: true class, columns: answer
    bins: tuple[Bin, ...]


def measure(probabilities: Floats, truth: Ints, classes: Sequence[str], answerable: Sequence[str]) -> Measures | None:
    """(n, classes) and (n,) class numbers to figures; None where n is 0. ``answerable``: the arm's classes."""
    if not len(truth):
        return None
    answers = predicted(probabilities)
    right = answers == truth
    matrix = confusion(answers, truth, len(classes))
    counts = np.bincount(truth, minlength=len(classes))
    rows = tuple(_class_row(matrix, int(counts[k]), k, name, name in answerable) for k, name in enumerate(classes))
    judged = [row for row in rows if row.support]
    return Measures(
        n=len(truth), accuracy=share(int(right.sum()), len(truth)),
        balanced_accuracy=_mean([row.recall.value if row.recall else 0.0 for row in judged]),
        macro_precision=_mean([row.precision or 0.0 for row in judged]),
        macro_f1=_mean([row.f1 or 0.0 for row in judged]),
        log_loss=log_loss(probabilities, truth), ece=expected_calibration_error(probabilities, truth),
        top=tuple((k, among_top(probabilities, truth, k)) for k in TOP if k < len(answerable)),
        classes=rows, confusion=tuple(tuple(int(v) for v in row) for row in matrix),
        bins=reliability(probabilities.max(axis=1), right),
    )  # fmt: skip


def predicted(probabilities: Floats) -> Ints:
    """The likeliest class of each row (n,); -1 where an arm has no answer at all."""
    return np.where(probabilities.max(axis=1) > 0, probabilities.argmax(axis=1), -1)


def confusion(answers: Ints, truth: Ints, classes: int) -> Ints:
    """(classes, classes) counts, true class by answer; rows without an answer are left out."""
    answered = answers >= 0
    cells = np.bincount(truth[answered] * classes + answers[answered], minlength=classes**2)
    return cells.reshape(classes, classes)


def share(part: int, n: int) -> Interval:
    """A proportion with its Wilson bounds; n must not be 0."""
    return Interval(part / n, *wilson(part, n))


def among_top(probabilities: Floats, truth: Ints, k: int) -> float:
    """Share of rows whose class is one of the k likeliest; a class with probability 0 never is."""
    of_truth = probabilities[np.arange(len(truth)), truth][:, None]
    before = np.arange(probabilities.shape[1])[None] < truth[:, None]
    ahead = (probabilities > of_truth) | ((probabilities == of_truth) & before)
    return float(((ahead.sum(axis=1) < k) & (of_truth[:, 0] > 0)).mean())


def reliability(sure: Floats, right: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """Equal-width bins of confidence, the same that the ECE sums over (Guo et al. 2017)."""
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    return tuple(_bin(b, sure[place == b], right[place == b]) for b in range(BINS))


def _bin(place: int, sure: Floats, right: NDArray[np.bool_]) -> Bin:
    edges = (place / BINS, (place + 1) / BINS)
    if not len(sure):
        return Bin(*edges, 0, None, None)
    return Bin(*edges, len(sure), float(sure.mean(dtype=np.float64)), float(right.mean()))


def _class_row(matrix: Ints, support: int, k: int, name: str, answerable: bool) -> ClassMeasures:
    hits, answers = int(matrix[k, k]), int(matrix[:, k].sum())
    if not support:
        return ClassMeasures(name, answerable, 0, answers, None, None, None)
    precision = hits / answers if answers else None
    return ClassMeasures(
        name, answerable, support, answers, precision, share(hits, support), 2 * hits / (support + answers)
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
