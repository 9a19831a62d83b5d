"""A GIF's blocks up to its first frame in, the size of that out: no other frame is ever decoded."""

from __future__ import annotations

import re
from struct import unpack_from

from labelloop.decoding.declared import Declared
from labelloop.errors import ImageUnreadableError

MAGIC = re.compile(rb"GIF8[79]a")
MAX_BLOCKS = 50_000  # before the first frame: Pillow's loop over them is one in Python
EXTENSION, FRAME = 0x21, 0x2C
HELD = 6  # bytes a pixel: the palette's index, and RGB


def read(data: bytes) -> Declared:
    """ImageUnreadableError where no frame is there."""
    width, height, flags = unpack_from("<HHB", data, 6)
    at = _first_frame(data, 13 + _palette(flags))
    left, top, wide, high = unpack_from("<HHHH", data, at + 1)
    return Declared("GIF", max(width, left + wide), max(height, top + high), held=HELD)


def _palette(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 128 else 0


def _first_frame(data: bytes, at: int) -> int:
    """Where it begins; IndexError where the file ends before. Pillow skips what it does not know byte by byte, too."""
    for _ in range(MAX_BLOCKS):
        if data[at] == FRAME:
            return at
        at = _after_extension(data, at + 2) if data[at] == EXTENSION else at + 1
    raise ImageUnreadableError("the GIF has no frame within reach: save it again")


def _after_extension(data: bytes, at: int) -> int:
    for _ in range(MAX_BLOCKS):
        if not data[at]:
            return at + 1
        at += data[at] + 1
    raise ImageUnreadableError(f"the GIF has an extension of more than {MAX_BLOCKS:,} blocks: save it again")
