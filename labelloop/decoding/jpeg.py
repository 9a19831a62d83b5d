"""A JPEG's markers in, its frame and scans out. Pixels are not looked at: a scan is skipped to the next marker."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from struct import unpack_from

from labelloop.decoding.declared import Declared, held
from labelloop.errors import ImageUnreadableError

MAGIC = re.compile(rb"\xff\xd8\xff")
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # not an escaped byte, not a restart within a scan
BARE = {0x01, 0xD8}  # markers without a segment
FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}  # what libjpeg can decode at a smaller size, too
OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF, 0xDE}
PROGRESSIVE = {0xC2, 0xCA}
END, SCAN, DESCRIPTION = 0xD9, 0xDA, 0xE1
MAX_SEGMENTS = 4096
MAX_JUNK = 65536  # bytes before the first scan that are no segment: Pillow skips them one by one
MAX_PIXELS = 300_000_000  # cameras of today have 200 million
MAX_SCANS = 30  # encoders write about ten
MAX_SCANNED = 1_200_000_000  # pixels times scans
QUICK_SCANNED = 50_000_000  # up to here a thread may do it, a fraction of a second long
COEFFICIENTS = 64


@dataclass(slots=True)
class Markers:
    """What the markers have said so far."""

    kind: int = 0
    size: tuple[int, int] = (0, 0)
    components: dict[int, tuple[int, int]] = field(default_factory=dict)  # id -> sampling factors
    described: bool = False  # by EXIF or XMP, which may say that it lies on its side
    scans: int = 0
    final: set[tuple[int, int]] = field(default_factory=set)  # (component, coefficient) at full precision
    ended: bool = False


def read(data: bytes) -> Declared:
    """ImageUnreadableError where it is no photograph: too large, too many scans, a kind that nobody writes."""
    markers = _walk(data)
    if not markers.kind or not markers.scans:
        raise ImageUnreadableError("the JPEG has no frame or no scan: it is cut off or damaged")
    _require_sane(markers)
    _require_all_scans(markers)
    (width, height), layers = markers.size, len(markers.components)
    return Declared(
        "JPEG", width, height,
        held=held(1 if layers == 1 else 4, 4 if layers == 4 else 0, may_turn=markers.described),
        always=_buffered(markers), reduces=True, apart=markers.scans * width * height > QUICK_SCANNED,
        cut_off=not markers.ended,
    )  # fmt: skip


def size(head: bytes) -> tuple[int, int]:
    """(width, height), also where the pixels are not there yet; ImageUnreadableError."""
    markers = _walk(head)
    if min(markers.size) < 1:
        raise ImageUnreadableError("the JPEG does not say how large it is within reach")
    return markers.size


def _walk(data: bytes) -> Markers:
    markers, at, junk = Markers(), 2, 0
    for _ in range(MAX_SEGMENTS):
        mark = MARKER.search(data, at)
        if mark is None:
            return markers
        junk += 0 if markers.scans else mark.start() - at
        if junk > MAX_JUNK:
            raise ImageUnreadableError("the JPEG has no segments where they belong: it is damaged")
        kind, at = data[mark.end() - 1], mark.end()
        if kind == END:
            markers.ended = True
            return markers
        if kind not in BARE:
            at += _segment(data, at, kind, markers)
    raise ImageUnreadableError(f"the JPEG has more than {MAX_SEGMENTS:,} segments: save it again")


def _segment(data: bytes, at: int, kind: int, markers: Markers) -> int:
    """Take in what one says; its length. IndexError where it is cut off before the first scan."""
    if at + 2 > len(data):
        return 0
    (length,) = unpack_from(">H", data, at)
    body = data[at + 2 : at + length]
    if kind in OTHER_FRAMES or (kind in FRAMES and markers.kind):
        raise ImageUnreadableError("the JPEG is lossless, hierarchical or has two frames: save it as an ordinary one")
    if kind in FRAMES:
        markers.kind, (height, width, layers) = kind, unpack_from(">HHB", body, 1)
        markers.size = (width, height)
        markers.components = {body[i]: (body[i + 1] >> 4, body[i + 1] & 15) for i in range(6, 6 + 3 * layers, 3)}
    elif kind == DESCRIPTION:
        markers.described = True
    elif kind == SCAN:
        _scan(body, markers)
    return int(max(length, 2))


def _scan(body: bytes, markers: Markers) -> None:
    markers.scans += 1
    count = body[0] if body else 0
    if len(body) < 2 * count + 4:
        return
    first, last, precision = body[2 * count + 1 : 2 * count + 4]
    if precision & 15 == 0:
        ids = (body[1 + 2 * i] for i in range(count))
        markers.final |= {(i, k) for i in ids for k in range(first, min(last, COEFFICIENTS - 1) + 1)}


def _require_sane(markers: Markers) -> None:
    pixels = markers.size[0] * markers.size[1]
    if pixels > MAX_PIXELS:
        raise ImageUnreadableError(
            f"the JPEG declares {markers.size[0]:,}×{markers.size[1]:,} pixels; the limit is {MAX_PIXELS:,}. "
            "Store a smaller copy of it"
        )
    if markers.scans > MAX_SCANS or markers.scans * pixels > MAX_SCANNED:
        raise ImageUnreadableError(
            f"the JPEG draws its {pixels:,} pixels in {markers.scans} scans; the limit is {MAX_SCANS}, and "
            f"{MAX_SCANNED:,} pixels in all. Save it as an ordinary JPEG"
        )
    if any(not (1 <= h <= 4 and 1 <= v <= 4) for h, v in markers.components.values()):
        raise ImageUnreadableError("the JPEG declares a sampling that does not exist: it is damaged")


def _require_all_scans(markers: Markers) -> None:
    """Without its end mark a file may also lack whole scans, which nothing else would show."""
    if not markers.ended and len(markers.final) < COEFFICIENTS * len(markers.components):
        raise ImageUnreadableError("the JPEG is cut off: scans are missing. Copy the file again")


def _buffered(markers: Markers) -> int:
    """Bytes for all coefficients, which several scans need: whatever the size that is asked for."""
    if markers.scans == 1 and markers.kind not in PROGRESSIVE:
        return 0
    across = max((h for h, _ in markers.components.values()), default=1)
    down = max((v for _, v in markers.components.values()), default=1)
    width, height = markers.size
    blocks = sum(
        math.ceil(width * h / across / 8 + across) * math.ceil(height * v / down / 8 + down)
        for h, v in markers.components.values()
    )
    return blocks * COEFFICIENTS * 2
