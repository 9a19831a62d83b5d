"""Disturbed copies of images, and what they cost in accuracy. Every image is disturbed, each by a seed of its own.

Kinds and rising severities as in Hendrycks and Dietterich 2019. Pixels are those of the square before the backbone's
own steps: a camera's noise comes before an HSV step, not after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from labelloop.decoding.square import Pixels
from labelloop.records.arrays import Floats
from labelloop.records.json import digest
from labelloop.rules.intervals import Interval
from retrain_worker.report.measures import Ints, predicted, share

NOISE, BLUR = "noise", "blur"


@dataclass(frozen=True, slots=True)
class Disturbance:
    """``severity``: standard deviation; of noise in 8-bit steps, of blur in pixels of the square."""

    kind: str  # noise | blur
    severity: float


DISTURBANCES = (
    Disturbance(NOISE, 8.0), Disturbance(NOISE, 16.0), Disturbance(NOISE, 32.0),
    Disturbance(BLUR, 1.0), Disturbance(BLUR, 2.0), Disturbance(BLUR, 4.0),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Robustness:
    """An arm's accuracy on disturbed copies of all readable test images."""

    kind: str
    severity: float
    clean: Interval  # accuracy on the same images undisturbed
    accuracy: Interval
    drop: float  # clean minus this
    changed: float  # share of the images that are answered otherwise


def disturb(images: Pixels, uris: Sequence[str], what: Disturbance, seed: int) -> Pixels:
    """(n, 3, H, W) uint8 to the same; an image's copy depends on its uri and the seed, not on its place."""
    copies = [_CHANGES[what.kind](image, what.severity, uri, seed) for image, uri in zip(images, uris, strict=True)]
    return np.stack(copies) if copies else images.copy()


def robustness(clean: Floats, disturbed: Mapping[Disturbance, Floats], truth: Ints) -> tuple[Robustness, ...]:
    """(n, classes) probabilities on clean and disturbed copies; nothing where there is no image."""
    if not len(truth):
        return ()
    before = predicted(clean)
    return tuple(
        _robustness(what, before, predicted(probabilities), truth) for what, probabilities in disturbed.items()
    )


def _robustness(what: Disturbance, before: Ints, after: Ints, truth: Ints) -> Robustness:
    accuracy = share(int((after == truth).sum()), len(truth))
    clean = share(int((before == truth).sum()), len(truth))
    changed = float((before != after).mean())
    return Robustness(what.kind, what.severity, clean, accuracy, clean.value - accuracy.value, changed)


def _noise(image: Pixels, severity: float, uri: str, seed: int) -> Pixels:
    """The same pattern at each severity, only stronger, so that a curve shows the severity and not the draw."""
    draw = np.random.default_rng(int(digest(f"noise:{seed}:{uri}".encode())[:16], 16))
    pattern = draw.standard_normal(image.shape, dtype=np.float32)
    return _eight_bit(image + pattern * np.float32(severity))


def _blur(image: Pixels, severity: float, _: str, __: int) -> Pixels:
    """A kernel wide enough for the severity; nothing is drawn."""
    rows = np.ascontiguousarray(image.transpose(1, 2, 0))
    return np.asarray(cv2.GaussianBlur(rows, (0, 0), severity), dtype=np.uint8).transpose(2, 0, 1)


def _eight_bit(values: NDArray[np.float32]) -> Pixels:
    return np.rint(values).clip(0, 255).astype(np.uint8)


_CHANGES: Mapping[str, Callable[[Pixels, float, str, int], Pixels]] = {NOISE: _noise, BLUR: _blur}
