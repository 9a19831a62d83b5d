"""How sure a head was and where it was right in, how far that may be believed out: ECE, beside the champion's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelloop.records.arrays import Floats
from labelloop.records.evidence import Calibration

BINS = 10
DRAWS = 400
ONCE_IN = 20  # chance makes an equal head look so much worse


@dataclass(frozen=True, slots=True)
class Sureness:
    """Of one head on n images; (n,) each."""

    sure: Floats  # the probability of what it named, in [0, 1]
    right: NDArray[np.bool_]

    def error(self) -> float:
        """Mean gap between sureness and accuracy over equal-width bins, weighted by their counts (Guo et al. 2017)."""
        place = np.minimum((self.sure * BINS).astype(int), BINS - 1)
        gaps = np.bincount(place, weights=self.sure - self.right, minlength=BINS)
        return float(np.abs(gaps).sum() / len(self.sure))


def expected_calibration_error(probabilities: Floats, truth: NDArray[np.int64]) -> float:
    """Of (n, classes) probabilities on class numbers (n,); n is at least 1."""
    return Sureness(probabilities.max(axis=1), probabilities.argmax(axis=1) == truth).error()


def calibration(ours: Sureness, theirs: Sureness | None) -> Calibration | None:
    """None without images; ``theirs``: the champion's on the same images."""
    n = len(ours.sure)
    if n == 0:
        return None
    if theirs is None:
        return Calibration(n, ours.error())
    return Calibration(n, ours.error(), theirs.error(), _chance(ours, theirs))


def _chance(ours: Sureness, theirs: Sureness) -> float:
    """The difference that equal heads exceed once in twenty: the two exchanged on a random half of the images.

    Resampling the images would not do: it makes any head look worse calibrated than it is.
    """
    rng = np.random.default_rng(0)
    differences = [_exchanged(ours, theirs, rng.random(len(ours.sure)) < 0.5) for _ in range(DRAWS)]
    return float(np.quantile(differences, 1 - 1 / ONCE_IN))


def _exchanged(ours: Sureness, theirs: Sureness, rows: NDArray[np.bool_]) -> float:
    one, other = (
        Sureness(np.where(rows, a.sure, b.sure), np.where(rows, a.right, b.right))
        for a, b in ((ours, theirs), (theirs, ours))
    )
    return one.error() - other.error()
