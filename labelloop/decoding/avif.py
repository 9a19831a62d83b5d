"""An AVIF's boxes in, the largest image that they describe out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from struct import unpack_from

from labelloop.decoding.declared import Declared
from labelloop.errors import ImageUnreadableError

MAGIC = re.compile(rb"....ftyp(avif|avis|mif1|msf1)", re.DOTALL)
MAX_BOXES = 1000
HELD = 14  # bytes a pixel: planes of up to 12 bits, RGBA as it is handed over, and Pillow's image
EXTENT = b"ispe"  # image spatial extents: version, width, height
DECODER = 16_000_000


def read(data: bytes) -> Declared:
    """ImageUnreadableError where no size is declared. One that lies is stopped by the memory it is given."""
    sizes = [size for box in _described(data) for size in _extents(box)]
    if not sizes:
        raise ImageUnreadableError("the AVIF does not say how large it is: it is damaged")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return Declared("AVIF", width, height, held=HELD, always=DECODER, apart=True)


def _described(data: bytes) -> Iterator[bytes]:
    """The boxes that describe; those with pixels may hold any bytes."""
    at = 0
    for _ in range(MAX_BOXES):
        if at + 8 > len(data):
            return
        size, kind = unpack_from(">I4s", data, at)
        if size == 1:
            (size,) = unpack_from(">Q", data, at + 8)
        end = at + size if size else len(data)
        if kind in {b"meta", b"moov"}:
            yield data[at:end]
        at = max(end, at + 8)


def _extents(box: bytes) -> Iterator[tuple[int, int]]:
    at = box.find(EXTENT)
    while at >= 0 and at + 16 <= len(box):
        width, height = unpack_from(">II", box, at + 8)
        yield width, height
        at = box.find(EXTENT, at + 4)
