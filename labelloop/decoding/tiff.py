"""A TIFF's first directory in, its size and the largest piece that a decoder holds out. BigTIFF, too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from struct import calcsize, unpack_from

from labelloop.decoding.declared import Declared
from labelloop.errors import ImageUnreadableError

MAGIC = re.compile(rb"II[*+]\x00|MM\x00[*+]")
MAX_TAGS = 1000
MAX_PIECES = 100_000  # strips or tiles: Pillow lists them in Python
SIZES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # types that a size may have
WIDTH, HEIGHT, BITS, SAMPLES, ROWS, TILE_WIDTH, TILE_HEIGHT = 256, 257, 258, 277, 278, 322, 323
STRIPS, TILES = 273, 324


@dataclass(frozen=True, slots=True)
class TiffTag:
    """One entry: how many values, and the first of them."""

    count: int
    first: int


def read(data: bytes) -> Declared:
    """ImageUnreadableError where the directory is too long or names too many pieces."""
    tags: dict[int, TiffTag] = {}
    for number, tag in _tags(data):
        tags.setdefault(number, tag)  # the first of two counts, as for Pillow
    width, height = _first(tags, WIDTH, 0), _first(tags, HEIGHT, 0)
    pieces = max((tags[t].count for t in (STRIPS, TILES) if t in tags), default=0)
    if pieces > MAX_PIECES:
        raise ImageUnreadableError(f"the TIFF lies in {pieces:,} pieces; the limit is {MAX_PIECES:,}. Save it again")
    samples, bits = _first(tags, SAMPLES, 1), _first(tags, BITS, 1)
    base = 4 if samples > 1 or bits > 16 else 2
    piece = _piece(tags, width, height) * max(4, samples * max(bits // 8, 1))
    return Declared("TIFF", width, height, held=base + 4, always=piece, apart=True)


def _piece(tags: dict[int, TiffTag], width: int, height: int) -> int:
    """Pixels of the largest strip or tile."""
    tile = _first(tags, TILE_WIDTH, 0) * _first(tags, TILE_HEIGHT, 0)
    return max(tile, width * min(_first(tags, ROWS, height), height))


def _first(tags: dict[int, TiffTag], number: int, otherwise: int) -> int:
    return tags[number].first if number in tags else otherwise


def _tags(data: bytes) -> Iterator[tuple[int, TiffTag]]:
    """Those that may say a size."""
    layout = Layout("<" if data[:2] == b"II" else ">", big=43 in data[2:4])
    at, count = layout.directory(data)
    if count > MAX_TAGS:
        raise ImageUnreadableError(f"the TIFF has {count:,} tags; the limit is {MAX_TAGS:,}. Save it again")
    for _ in range(count):
        number, kind = unpack_from(layout.order + "HH", data, at)
        if kind in SIZES:
            yield number, layout.tag(data, at + 4, SIZES[kind])
        at += layout.entry


@dataclass(frozen=True, slots=True)
class Layout:
    """How numbers lie in the file: their order, and whether offsets have eight bytes."""

    order: str
    big: bool

    @property
    def entry(self) -> int:
        """Bytes of one."""
        return 20 if self.big else 12

    def directory(self, data: bytes) -> tuple[int, int]:
        """(where its first entry is, how many there are)."""
        at = self._number(data, 8 if self.big else 4, self._offset)
        count = self._number(data, at, "Q" if self.big else "H")
        return at + (8 if self.big else 2), count

    def tag(self, data: bytes, at: int, form: str) -> TiffTag:
        """From its count on."""
        count = self._number(data, at, self._offset)
        room = 8 if self.big else 4
        value = at + room
        if count * calcsize("=" + form) > room:
            value = self._number(data, value, self._offset)
        return TiffTag(count, self._number(data, value, form) if count else 0)

    @property
    def _offset(self) -> str:
        return "Q" if self.big else "I"

    def _number(self, data: bytes, at: int, form: str) -> int:
        if at > len(data):
            raise IndexError("behind the end")
        return int(unpack_from(self.order + form, data, at)[0])
