"""The answers of an export beside those of the served model, on real images: how far apart, and whether near enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import ConflictError
from labelloop.model.ensemble import EnsembleHead
from retrain_worker.exports.formats import Outputs, Run
from retrain_worker.exports.parts import Parts, Pixels

BATCH = 32
AGREE, AGREE_INT8 = 0.995, 0.97  # least share of images with the same top class
APART = 0.01  # most that a probability may differ by; int8 rounds further and is judged by its classes alone
USUAL = (
    0.95  # share of images on which that holds of an ensemble: at a threshold of a tree a last digit takes another way
)

Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """On how many images, and what came out."""

    images: int
    splits: Mapping[str, int]  # where they were taken from
    agreement: float  # share with the same top class
    largest_difference: float  # of any probability, in [0, 1]
    usual_difference: float  # `USUAL` of the images differ by no more
    quantised: bool = False
    stepwise: bool = False  # an ensemble of trees

    @property
    def least(self) -> float:
        """Agreement below which nothing is exported."""
        return AGREE_INT8 if self.quantised else AGREE

    @property
    def words(self) -> str:
        """For people."""
        return (
            f"Same class as the served model on {self.agreement:.1%} of {self.images} images; largest difference of a "
            f"probability {self.largest_difference:.2g}"
        )

    def check(self) -> None:
        """ConflictError where it is too far from the served model."""
        if self.agreement < self.least:
            raise ConflictError(
                f"not exported: only {self.agreement:.1%} of {self.images} images get the class of the served model, "
                f"{self.least:.1%} are needed. "
                + ("Leave --quantise out" if self.quantised else "Use another format, or another backbone")
            )
        if self.quantised:
            return
        difference = self.usual_difference if self.stepwise else self.largest_difference
        if not difference <= APART:  # also NaN
            raise ConflictError(
                f"not exported: probabilities are up to {difference:.2g} off the served model's on "
                f"{self.images} images, {APART} is allowed. Use another format, or another backbone"
            )

    def to_json(self) -> dict[str, Any]:
        """For `model.json`."""
        return {**asdict(self), "splits": dict(self.splits), "least_agreement": self.least}


def measure(
    parts: Parts, run: Run, pixels: Pixels, splits: Mapping[str, int], *, quantised: bool, report: Report
) -> Measured:  # fmt: skip
    """``pixels`` (n, 3, size, size), through the served model and through the export."""
    same, parted = 0, list[NDArray[np.float64]]()
    for start in range(0, len(pixels), BATCH):
        part = pixels[start : start + BATCH]
        expected, found = parts.reference(part), run(part)
        same += int((expected.probabilities.argmax(axis=1) == found.probabilities.argmax(axis=1)).sum())
        parted.append(_apart(expected, found))
        report("check", min(start + BATCH, len(pixels)), len(pixels))
    apart = np.sort(np.concatenate(parted))
    usual, stepwise = float(apart[int(USUAL * (len(apart) - 1))]), isinstance(parts.classifier, EnsembleHead)
    return Measured(
        len(pixels), splits, same / len(pixels), float(apart[-1]), usual, quantised=quantised, stepwise=stepwise
    )


def _apart(expected: Outputs, found: Outputs) -> NDArray[np.float64]:
    """(n,): the largest difference of each image; infinity where a number is missing."""
    worst = np.abs(expected.probabilities.astype(np.float64) - found.probabilities).max(axis=1)
    if expected.unseen is not None and found.unseen is not None:
        worst = np.maximum(worst, np.abs(expected.unseen.astype(np.float64) - found.unseen))
    elif expected.unseen is not None or found.unseen is not None:
        worst = np.full_like(worst, np.inf)
    return np.asarray(np.where(np.isfinite(worst), worst, np.inf), dtype=np.float64)
