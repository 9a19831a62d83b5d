"""Good images of every format and mode in, broken ones out: each follows from its seed alone."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import numpy as np
from numpy.random import Generator
from PIL import Image

SAVED = (  # format, modes, options
    ("JPEG", ("RGB", "L", "CMYK"), ({}, {"progressive": True}, {"subsampling": 0, "restart_marker_blocks": 3})),
    ("PNG", ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"), ({},)),
    ("WEBP", ("RGB", "RGBA"), ({}, {"lossless": True})),
    ("GIF", ("P", "L"), ({}, {"interlace": 0})),
    ("BMP", ("RGB", "L", "P", "1"), ({},)),
    ("TIFF", ("RGB", "RGBA", "L", "P", "CMYK", "I;16", "F", "LAB"),
     ({}, {"compression": "tiff_lzw"}, {"compression": "tiff_deflate"}, {"compression": "jpeg"}, {"tiled": 16},
      {"compression": "packbits"}, {"big_tiff": True})),
    ("TIFF", ("1",), ({"compression": "group4"},)),
    ("AVIF", ("RGB", "RGBA"), ({"speed": 10},)),
)  # fmt: skip
EXTREMES = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
FORMS = (">H", "<H", ">I", "<I", "B")


def originals(pictures: Sequence[Image.Image]) -> list[bytes]:
    """Each picture once in every format, mode and kind that Pillow writes; also animated and with EXIF."""
    found: list[bytes] = []
    for number, (form, modes, kinds) in enumerate(SAVED):
        picture = pictures[number % len(pictures)]
        found += [data for mode in modes for options in kinds if (data := _saved(picture, form, mode, options))]
    rgb, exif = pictures[0].convert("RGB"), Image.Exif()
    exif[0x0112] = 6
    for form in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        found.append(_written(rgb, form, {"exif": exif}))
    for form in ("GIF", "WEBP", "PNG", "TIFF", "MPO", "AVIF"):
        found.append(_written(rgb, form, {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}))
    return found


def mutants(good: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """The first ``count``; the same ones for a seed."""
    for number in range(count):
        draw = np.random.default_rng((seed, number))
        data = good[int(draw.integers(len(good)))]
        for _ in range(int(draw.integers(1, 4))):
            data = MUTATIONS[int(draw.integers(len(MUTATIONS)))](data, good, draw)
        yield _resealed(data) if draw.random() < 0.5 else data


def _saved(picture: Image.Image, form: str, mode: str, options: dict[str, object]) -> bytes:
    image = picture.convert("L") if mode in {"I;16", "F"} else picture.convert("RGB")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    elif mode != image.mode:
        with suppress(ValueError):
            image = image.convert(mode)
    if options.get("tiled"):
        options = {"tiffinfo": {322: 16, 323: 16}}
    with suppress(OSError, KeyError, ValueError, RuntimeError):  # not every compression takes every mode
        return _written(image, form, options)
    return b""


def _written(image: Image.Image, form: str, options: dict[str, object]) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)  # type: ignore[arg-type]
    return out.getvalue()


def _place(data: bytes, draw: Generator) -> int:
    """Half of them in what is likely the header."""
    end = len(data) if draw.random() < 0.5 else min(len(data), 600)
    return int(draw.integers(max(end, 1)))


def _flip(data: bytes, _: Sequence[bytes], draw: Generator) -> bytes:
    out = bytearray(data)
    for _i in range(int(draw.integers(1, 12))):
        if out:
            out[_place(data, draw)] ^= 1 << int(draw.integers(8))
    return bytes(out)


def _cut(data: bytes, _: Sequence[bytes], draw: Generator) -> bytes:
    return data[: _place(data, draw)]


def _field(data: bytes, _: Sequence[bytes], draw: Generator) -> bytes:
    """A number somewhere becomes an extreme one: a size, a length, a count, an offset."""
    form, value = FORMS[int(draw.integers(len(FORMS)))], EXTREMES[int(draw.integers(len(EXTREMES)))]
    packed = struct.pack(form, value & (256 ** struct.calcsize(form) - 1))
    at = _place(data, draw)
    return data[:at] + packed + data[at + len(packed) :]


def _splice(data: bytes, good: Sequence[bytes], draw: Generator) -> bytes:
    other = good[int(draw.integers(len(good)))]
    return data[: _place(data, draw)] + other[_place(other, draw) :]


def _double(data: bytes, _: Sequence[bytes], draw: Generator) -> bytes:
    first, last = sorted((_place(data, draw), _place(data, draw)))
    return data[:last] + data[first:last] * int(draw.integers(1, 20)) + data[last:]


def _remove(data: bytes, _: Sequence[bytes], draw: Generator) -> bytes:
    at = _place(data, draw)
    return data[:at] + data[at + int(draw.integers(1, 40)) :]


def _noise(data: bytes, _: Sequence[bytes], draw: Generator) -> bytes:
    at, length = _place(data, draw), int(draw.integers(1, 64))
    return data[:at] + draw.bytes(length) + data[at + length :]


Mutation = Callable[[bytes, Sequence[bytes], Generator], bytes]
MUTATIONS: tuple[Mutation, ...] = (_flip, _cut, _field, _field, _splice, _double, _remove, _noise)


def _resealed(data: bytes) -> bytes:
    """A PNG with right check sums again, so that what was changed is looked at."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        (length,) = struct.unpack_from(">I", out, at)
        if at + 12 + length > len(out):
            break
        struct.pack_into(">I", out, at + 8 + length, zlib.crc32(out[at + 4 : at + 8 + length]))
        at += 12 + length
    return bytes(out)
