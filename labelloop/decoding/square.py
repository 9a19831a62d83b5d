"""Image bytes in, one square of pixels out: the same for serving, featurising, training and evaluation.

Every image is weighed by what it declares before anything is decoded. Small ones are decoded in the thread that asks,
within one budget of bytes for the whole process; large and intricate ones in helper processes that can be killed.
"""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass

import numpy as np

from labelloop.decoding import pixel_steps
from labelloop.decoding.apart import Helpers
from labelloop.decoding.budget import Budget
from labelloop.decoding.declared import Declared, declared
from labelloop.decoding.picture import (
    BY_VALUES,
    FORMATS,
    RESAMPLING,
    Pixels,
    Shape,
    Square,
    Whole,
    render,
    without_steps,
)
from labelloop.errors import ImageUnreadableError

__all__ = ["BY_VALUES", "FORMATS", "PATIENCE_S", "RESAMPLING", "Pixels", "Square", "decode", "is_costly", "shrink"]

SMALL = 16_000_000  # bytes: what a thread decodes by itself, in a fraction of a second
LARGE = 384_000_000  # bytes of all larger ones together, and so of the largest
TOTAL = 512_000_000
HELPERS = 2  # processes
PATIENCE_S = 300.0  # every holder ends within a minute


@dataclass(slots=True)
class _Shared:
    """What all threads of this process have in common. A forked child gets its own: locks may be held at that time."""

    budget: Budget
    helpers: Helpers


def _shared() -> _Shared:
    return _Shared(Budget(TOTAL, large=LARGE, small=SMALL), Helpers(HELPERS))


def _forget() -> None:
    global _process  # noqa: PLW0603
    _process = _shared()


_process = _shared()
os.register_at_fork(after_in_child=_forget)


@atexit.register
def _close() -> None:
    _process.helpers.close()


def decode(data: bytes, square: Square, *, wait_s: float = PATIENCE_S) -> Pixels:
    """(3, size, size) uint8 RGB, turned as its EXIF says; ImageUnreadableError says why not, DecodersBusyError."""
    pixels = pixel_steps.apply(_pixels(data, square, wait_s), square.steps)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def shrink(data: bytes, longest: int) -> Pixels:
    """The whole image, (3, H, W) uint8 RGB with no side above ``longest``: for people. ImageUnreadableError."""
    return np.ascontiguousarray(_pixels(data, Whole(longest), PATIENCE_S).transpose(2, 0, 1))


def is_costly(data: bytes, square: Square) -> bool:
    """Whether `decode` would need a helper process, and may wait for it; ImageUnreadableError."""
    return _weighed(data, square)[2]


def _pixels(data: bytes, shape: Shape, wait_s: float) -> Pixels:
    image, needs, apart = _weighed(data, shape)
    with _process.budget.hold(needs, wait_s):
        if apart:
            return _process.helpers.render(data, image, without_steps(shape), needs, wait_s)
        return render(data, image, shape)


def _weighed(data: bytes, shape: Shape) -> tuple[Declared, int, bool]:
    """What it declares, the bytes that it needs, and whether a helper is to decode it."""
    if not data:
        raise ImageUnreadableError("the image is empty (0 bytes)")
    image = declared(data)
    needs = image.needs(shape.longest) + 2 * len(data)
    if needs > LARGE:
        raise ImageUnreadableError(
            f"the {image.format} declares {image.width:,}×{image.height:,} pixels, for which decoding needs "
            f"{needs // 10**6:,} MB; the limit is {LARGE // 10**6} MB. Store a smaller copy, or a JPEG"
        )
    return image, needs, image.apart or needs > SMALL
