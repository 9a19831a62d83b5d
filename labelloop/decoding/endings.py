"""A name in, and where it has no ending the first bytes, whether that is an image out.

The one rule: of listings, of the storage in Label Studio, of folders that are uploaded.
"""

from __future__ import annotations

import re
from struct import unpack_from

from labelloop.decoding import avif, bmp, gif, jpeg, png, tiff, webp

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".avif")
LATER = (".jpe", ".jfif")  # not in projects that an older release has made
BEFORE = tuple(ending for ending in SUFFIXES if ending not in LATER)
HEIC = (".heic", ".heif", ".hif")
HEAD = 64  # bytes that tell a format
IS_HEIC = "HEIC is not read: save it as JPEG"
NO_ENDING = "its name has no ending"
NO_FORMAT = "its name has no ending, and it does not begin like an image"
_BRANDS = re.compile(rb"hei[cxms]|hev[cx]")
_BITMAPS = {12, 16, 40, 52, 56, 64, 108, 124}  # lengths of the header that follows


def ending_of(name: str) -> str:
    """In small letters, with its dot; empty where a name has none. ``name``: a key, or a path with slashes."""
    _, dot, ending = name.rpartition("/")[2].lower().rpartition(".")
    return f".{ending}" if dot else ""


def no_image(name: str, endings: tuple[str, ...] = SUFFIXES) -> str | None:
    """Why a name is not that of an image; None where it is. `NO_ENDING`: its first bytes tell."""
    ending = ending_of(name)
    if ending in endings:
        return None
    if ending in HEIC:
        return IS_HEIC
    return f"its name ends in {ending[:13]}" if ending else NO_ENDING


def no_format(head: bytes) -> str | None:
    """Why the first bytes are not those of an image; None where they are."""
    if head[4:8] == b"ftyp" and b"avi" not in head[8:] and _BRANDS.search(head[8:]):
        return IS_HEIC
    formats = (jpeg, png, webp, gif, tiff, avif)
    return None if any(f.MAGIC.match(head) for f in formats) or _is_bitmap(head) else NO_FORMAT


def _is_bitmap(head: bytes) -> bool:
    """Its mark is two letters, which a text may begin with."""
    return bool(bmp.MAGIC.match(head)) and len(head) >= 18 and unpack_from("<I", head, 14)[0] in _BITMAPS
