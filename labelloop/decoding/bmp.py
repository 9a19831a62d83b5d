"""A BMP's header in, its size and bits out."""

from __future__ import annotations

import re
from struct import unpack_from

from labelloop.decoding.declared import Declared

MAGIC = re.compile(rb"BM.{12}", re.DOTALL)
OLD = 12  # bytes of the oldest header
RUN_LENGTHS = {1, 2}  # compressions that Pillow decodes in Python
RUN_COPIES = 3.0


def read(data: bytes) -> Declared:
    """struct.error where the header is cut off."""
    (header,) = unpack_from("<I", data, 14)
    if header == OLD:
        width, height, _, bits = unpack_from("<HHHH", data, 18)
        return _bitmap(width, height, bits, 0)
    width, height, _, bits, compression = unpack_from("<IIHHI", data, 18)
    if data[25] == 0xFF:  # negative: from top to bottom
        height = 2**32 - height
    return _bitmap(width, height, bits, compression)


def _bitmap(width: int, height: int, bits: int, compression: int) -> Declared:
    held, slow = (5.0 if bits <= 8 else 8.0 if bits == 32 else 4.0), compression in RUN_LENGTHS
    return Declared("BMP", width, height, held=held + (RUN_COPIES if slow else 0), apart=slow)
