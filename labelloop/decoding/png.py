"""A PNG's chunks in, its size and kind of pixel out."""

from __future__ import annotations

import re
from struct import unpack_from

from labelloop.decoding.declared import Declared, held
from labelloop.errors import ImageUnreadableError

MAGIC = re.compile(rb"\x89PNG\r\n\x1a\n")
MAX_CHUNKS = 50_000  # Pillow's loop over them is one in Python
INFLATED = 3_000_000  # bytes that a compressed text or profile may become, with copies; Pillow has the limit
TEXT_MOST = 64  # of them
DESCRIPTIONS = {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}  # where an orientation may stand
GRAY, COLOUR, PALETTE, GRAY_ALPHA, ALPHA = 0, 2, 3, 4, 6


def read(data: bytes) -> Declared:
    """ImageUnreadableError where it has too many chunks."""
    width, height, depth, kind = unpack_from(">IIBB", data, 16)
    if data[12:16] != b"IHDR":
        raise ImageUnreadableError("the PNG does not begin with its header: it is damaged")
    counted = _chunks(data)
    base, converted = _bytes(depth, kind, clear=counted.get(b"tRNS", 0) > 0)
    inflating = sum(counted.get(name, 0) for name in (b"zTXt", b"iTXt", b"iCCP"))
    return Declared(
        "PNG", width, height, held=held(base, converted, may_turn=not DESCRIPTIONS.isdisjoint(counted)),
        always=min(inflating, TEXT_MOST) * INFLATED,
    )  # fmt: skip


def _chunks(data: bytes) -> dict[bytes, int]:
    """How many there are of each kind."""
    counted: dict[bytes, int] = {}
    at, end = 8, len(data)
    for _ in range(MAX_CHUNKS):
        if at + 8 > end:
            return counted
        length, name = unpack_from(">I4s", data, at)
        counted[name] = counted.get(name, 0) + 1
        at += length + 12
    raise ImageUnreadableError(f"the PNG has more than {MAX_CHUNKS:,} chunks: save it again")


def _bytes(depth: int, kind: int, *, clear: bool) -> tuple[int, int]:
    """(held by Pillow, made by converting) for each pixel."""
    if kind in {GRAY_ALPHA, ALPHA} or (clear and kind == COLOUR):
        return 4, 4
    if kind == COLOUR:
        return 4, 0
    if kind == GRAY and not clear:
        return (2, 1) if depth == 16 else (1, 4 if depth == 1 else 0)
    return 2, 4
