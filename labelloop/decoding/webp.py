"""A WebP's header in, its canvas out. The decoder holds two of them before it has decoded anything."""

from __future__ import annotations

import re
from struct import unpack_from

from labelloop.decoding.declared import Declared
from labelloop.errors import ImageUnreadableError

MAGIC = re.compile(rb"RIFF....WEBPVP8[ LX]", re.DOTALL)
HELD = 16  # bytes a pixel: two canvases of RGBA, what is handed over or converted, and Pillow's image


def read(data: bytes) -> Declared:
    """ImageUnreadableError where the size is missing."""
    return Declared("WEBP", *_size(data), held=HELD)


def _size(data: bytes) -> tuple[int, int]:
    kind = data[15:16]
    if kind == b"X":
        wide, high = (int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        return wide + 1, high + 1
    if kind == b"L" and data[20] == 0x2F:
        (bits,) = unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    if kind == b" " and data[23:26] == b"\x9d\x01\x2a":
        width, height = unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ImageUnreadableError("the WebP does not say how large it is: it is damaged")
