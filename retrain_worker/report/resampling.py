"""How far figures would move with other test images: seeded bootstrap over the images, both arms on the same draws.

Efron 1979, percentile intervals. Accuracy has exact formulas elsewhere; ECE has none here, since resampling biases it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelloop.records.arrays import Floats
from retrain_worker.report.measures import Ints, confusion, predicted

DRAWS = 500
LEAST = 20  # images below which a percentile says nothing
FLOOR = 1e-6  # as the log loss elsewhere
MEANS = ("balanced_accuracy", "macro_precision", "macro_f1")

Doubles = NDArray[np.float64]
Bounds = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Resampled:
    """95 % intervals by figure: of each arm, and of the first minus the second."""

    arms: tuple[Mapping[str, Bounds], ...]
    difference: Mapping[str, Bounds]


def resample(arms: Sequence[Floats], truth: Ints, seed: int) -> Resampled:
    """One or two arms' (n, classes) probabilities; nothing at all below `LEAST` images."""
    if len(truth) < LEAST:
        return Resampled(tuple({} for _ in arms), {})
    draw = np.random.default_rng([seed, len(truth)])
    places = [draw.integers(0, len(truth), len(truth)) for _ in range(DRAWS)]
    drawn = [_figures(probabilities, truth, places) for probabilities in arms]
    both = {name: drawn[0][name] - drawn[1][name] for name in drawn[0]} if len(arms) == 2 else {}
    return Resampled(tuple(_all_bounds(figures) for figures in drawn), _all_bounds(both))


def _figures(probabilities: Floats, truth: Ints, places: Sequence[Ints]) -> dict[str, Doubles]:
    """Each figure on each draw, (draws,)."""
    answers, classes = predicted(probabilities), probabilities.shape[1]
    of_truth = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    losses = -np.log(np.clip(of_truth, FLOOR, 1.0))
    rows = [(*_shares(answers[p], truth[p], classes), losses[p].mean()) for p in places]
    return dict(zip((*MEANS, "log_loss"), np.array(rows).T, strict=True))


def _shares(answers: Ints, truth: Ints, classes: int) -> tuple[float, ...]:
    """The `MEANS` over the classes that were drawn."""
    matrix = confusion(answers, truth, classes)
    hits, support = matrix.diagonal(), np.bincount(truth, minlength=classes)
    present, answered = support > 0, matrix.sum(axis=0)
    recall, precision = hits / np.maximum(support, 1), hits / np.maximum(answered, 1)
    f1 = 2 * hits / np.maximum(support + answered, 1)
    return tuple(float(figure[present].mean()) for figure in (recall, precision, f1))


def _all_bounds(figures: Mapping[str, Doubles]) -> dict[str, Bounds]:
    """Without figures that never move, as where every answer is right: a point is no interval."""
    bounds = {name: np.percentile(values, (2.5, 97.5)) for name, values in figures.items()}
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items() if high > low}
