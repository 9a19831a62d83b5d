"""Preprocessing after the square: pixels in, pixels out, recorded with the backbone, the same wherever it is used.

All steps work on (H, W, 3) uint8 RGB and give the same shape; `steps` says what may be asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def _gray(image: Image, _: Mapping[str, Any]) -> Image:
    return np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), dtype=np.uint8)


def _blur(image: Image, step: Mapping[str, Any]) -> Image:
    kernel = int(step["kernel"])
    return np.asarray(cv2.GaussianBlur(image, (kernel, kernel), float(step["sigma"])), dtype=np.uint8)


def _hsv(image: Image, _: Mapping[str, Any]) -> Image:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), dtype=np.uint8)


def _mask(image: Image, step: Mapping[str, Any]) -> Image:
    """The range is one of colours: it is looked for before a step that turns them into something else."""
    inside = cv2.inRange(_hsv(image, {}), np.array(step["low"]), np.array(step["high"]))
    return np.asarray(cv2.bitwise_and(image, image, mask=inside), dtype=np.uint8)


_DONE: Mapping[str, Callable[[Image, Mapping[str, Any]], Image]] = {
    "gray": _gray, "blur": _blur, "hsv": _hsv, "mask": _mask,
}  # fmt: skip


def apply(image: Image, steps: Sequence[Mapping[str, Any]]) -> Image:
    """Recorded steps, in their order. KeyError for one that this release does not know."""
    for step in steps:
        image = _DONE[step["do"]](image, step)
    return image
