"""The first bytes of an image in, what it declares out: its format, its size and what decoding it will hold.

Nothing is decoded here, and Pillow is not asked: some of its decoders allocate by the declared size when they open.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from labelloop.errors import ImageUnreadableError

RESIZING = 1.0  # bytes a pixel: the half-size copy that a resize begins with
READ = "JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF are read"


@dataclass(frozen=True, slots=True)
class Declared:
    """What an image says of itself. ``width`` and ``height`` are those of what a decoder will make."""

    format: str  # as Pillow calls it
    width: int
    height: int
    held: float  # bytes for each pixel that is decoded
    always: int = 0  # bytes besides, whatever the size that is asked for
    reduces: bool = False  # can be decoded at 1/2, 1/4 or 1/8 of its size
    apart: bool = False  # too intricate for a bound on time: only in a process that can be killed
    cut_off: bool = False  # the file ends before its end mark

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def needs(self, side: int) -> int:
        """Bytes that decoding will hold where no side must be above ``side`` pixels."""
        scale = self._scale(side) if self.reduces else 1
        return int(self.pixels / scale**2 * (self.held + RESIZING)) + self.always

    def _scale(self, side: int) -> int:
        """As Pillow's `draft` chooses it."""
        room = min(self.width, self.height) // max(side, 1)
        return next((s for s in (8, 4, 2) if room >= s), 1)


def declared(data: bytes) -> Declared:
    """What these bytes say they are; ImageUnreadableError where no format is known by them or the size is missing."""
    from labelloop.decoding import avif, bmp, gif, jpeg, png, tiff, webp

    for module in (jpeg, png, webp, gif, bmp, tiff, avif):
        if module.MAGIC.match(data):
            with _whole_header(data):
                return _sized(module.read(data))
    raise ImageUnreadableError(f"the image is of an unknown format; {READ}: save it as one of them")


def sides_of(head: bytes) -> tuple[int, int]:
    """(width, height) of an image that begins so; ImageUnreadableError where that is said further behind."""
    from labelloop.decoding import jpeg

    if not jpeg.MAGIC.match(head):
        image = declared(head)
        return image.width, image.height
    with _whole_header(head):
        return jpeg.size(head)


@contextmanager
def _whole_header(data: bytes) -> Iterator[None]:
    try:
        yield
    except (struct.error, IndexError) as error:
        raise ImageUnreadableError(f"the image ends within its header ({len(data):,} bytes)") from error


def held(base: float, converted: float, *, may_turn: bool) -> float:
    """Bytes a pixel at the worst moment: turning as an orientation says, or converting to RGB."""
    return max(base * 2, base + converted) if may_turn else base + converted


def _sized(image: Declared) -> Declared:
    if image.width < 1 or image.height < 1:
        raise ImageUnreadableError(f"the {image.format} declares {image.width}×{image.height} pixels: it is damaged")
    return image
