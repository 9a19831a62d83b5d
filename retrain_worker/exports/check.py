"""The answers of an export beside those of the served model, on real images: how far apart, and whether near enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from labelloop.errors import ConflictError
from retrain_worker.exports.formats import Outputs, Run
from retrain_worker.exports.parts import Parts, Pixels

BATCH = 32
AGREE, AGREE_INT8 = 0.995, 0.97  # least share of images with the same top class
APART = 0.01  # most that a probability may differ by; int8 rounds further and is judged by its classes alone

Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """On how many images, and what came out."""

    images: int
    splits: Mapping[str, int]  # where they were taken from
    agreement: float  # share with the same top class
    largest_difference: float  # of any probability, in [0, 1]
    quantised: bool

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
        if not (self.quantised or self.largest_difference <= APART):  # also NaN
            raise ConflictError(
                f"not exported: a probability is {self.largest_difference:.2g} off the served model's on one of "
                f"{self.images} images, {APART} is allowed. Use another format, or another backbone"
            )

    def to_json(self) -> dict[str, Any]:
        """For `model.json`."""
        return {**asdict(self), "splits": dict(self.splits), "least_agreement": self.least}


def measure(
    parts: Parts, run: Run, pixels: Pixels, splits: Mapping[str, int], *, quantised: bool, report: Report
) -> Measured:  # fmt: skip
    """``pixels`` (n, 3, size, size), through the served model and through the export."""
    same, apart = 0, 0.0
    for start in range(0, len(pixels), BATCH):
        part = pixels[start : start + BATCH]
        expected, found = parts.reference(part), run(part)
        same += int((expected.probabilities.argmax(axis=1) == found.probabilities.argmax(axis=1)).sum())
        apart = max(apart, _apart(expected, found))
        report("check", min(start + BATCH, len(pixels)), len(pixels))
    return Measured(len(pixels), splits, same / len(pixels), apart, quantised)


def _apart(expected: Outputs, found: Outputs) -> float:
    """Infinity where a number is missing."""
    pairs = [(expected.probabilities, found.probabilities), (expected.unseen, found.unseen)]
    differences = [np.abs(a - b).max() for a, b in pairs if a is not None and b is not None]
    worst = float(max(differences))
    return worst if np.isfinite(worst) and (expected.unseen is None) == (found.unseen is None) else float("inf")
