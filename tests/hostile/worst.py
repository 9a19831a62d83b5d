"""The worst images that are known, each by its name: what they cost stands beside them. Few bytes, or the most."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, kind: int, depth: int = 8, before: bytes = b"") -> bytes:
    """All black, whatever its size; ``before``: chunks between header and pixels."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    row = b"\0" * (1 + width * samples * depth // 8)
    deflate = zlib.compressobj(1)
    pixels = b"".join(deflate.compress(row * 16) for _ in range(height // 16)) + deflate.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return PNG + header + before + chunk(b"IDAT", pixels) + chunk(b"IEND")


def webp(width: int, height: int) -> bytes:
    """Lossless, of one colour: 34 bytes and 16 for each pixel in memory."""
    bits = struct.pack("<I", (width - 1) | (height - 1) << 14)
    body = b"VP8L" + struct.pack("<I", 14) + b"\x2f" + bits + bytes.fromhex("0710111188888808")[:8] + b"\0"
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def saved(mode: str, size: tuple[int, int], form: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size).save(out, form, **options)  # type: ignore[arg-type]
    return out.getvalue()


def scans(size: tuple[int, int], count: int) -> bytes:
    """A progressive JPEG whose last scan is drawn again and again."""
    noise = np.random.default_rng(0).integers(0, 255, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize(size).save(out, "JPEG", progressive=True, quality=90)
    data = out.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * (count - 9) + data[-2:]


def tiff(width: int, height: int, *more: tuple[int, int, int], strips: tuple[list[int], list[int]]) -> bytes:
    """Uncompressed gray, little-endian; ``more``: (tag, type, value); ``strips``: their offsets and lengths."""
    count = len(strips[0])
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (277, 3, 1), *more]
    lists = b"".join(struct.pack(f"<{count}I", *values) for values in strips)
    at = 8 + 2 + 12 * (len(tags) + 2) + 4
    entries = sorted([struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags]
                     + [struct.pack("<HHII", 273, 4, count, at), struct.pack("<HHII", 279, 4, count, at + 4 * count)],
                     key=lambda entry: struct.unpack_from("<H", entry))  # fmt: skip
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + b"\0\0\0\0" + lists


def crossing_strips() -> bytes:
    """Each strip lies at the other end of the file: whoever reads from one to the next copies all of it each time."""
    rows, filling = 20_000, 10_000_000
    offsets = [8 if i % 2 else filling for i in range(rows)]
    return tiff(16, rows, (278, 4, 1), strips=(offsets, [16] * rows)) + b"\0" * filling


def run_lengths() -> bytes:
    """10 million pixels that Pillow draws in Python."""
    width = height = 3200
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 0, 0, 0, 256, 0)
    pixels = (b"\x01\x05" * width + b"\0\0") * height
    offset = 14 + 40 + 1024
    palette = bytes(range(256)) * 4
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + header + palette + pixels


def ppm() -> bytes:
    return b"P3\n1000 1000\n255\n" + b"1 2 3 " * 1_000_000


WORST: Mapping[str, Callable[[], bytes]] = {
    "webp-34-bytes": partial(webp, 16383, 5400),
    "webp-at-the-limit": partial(webp, 4700, 4700),
    "png-16-bit-gray": partial(png, 9408, 9408, 0, 16),
    "png-rgba-at-the-limit": partial(png, 6400, 6400, 6),
    "png-ten-billion": lambda: png(16, 16, 2).replace(struct.pack(">II", 16, 16), struct.pack(">II", 100000, 100000)),
    "png-million-chunks": lambda: png(16, 16, 2, before=chunk(b"teSt") * 1_000_000),
    "png-texts": lambda: png(16, 16, 2, before=chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 1_000_000)) * 70),
    "tiff-float": partial(saved, "F", (9400, 9400), "TIFF", compression="tiff_lzw"),
    "tiff-16-bit": partial(saved, "I;16", (9400, 9400), "TIFF", compression="tiff_lzw"),
    "tiff-huge-tile": lambda: tiff(64, 64, (322, 4, 60000), (323, 4, 60000), strips=([8], [64])) + b"\0" * 4096,
    "tiff-crossing-strips": crossing_strips,
    "jpeg-300-scans": partial(scans, (1500, 1000), 300),
    "jpeg-30-scans": partial(scans, (4000, 3000), 30),
    "jpeg-million-segments": lambda: b"\xff\xd8" + b"\xff\xe5\x00\x02" * 3_000_000,
    "jpeg-progressive-64-megapixel": partial(saved, "RGB", (8000, 8000), "JPEG", progressive=True),
    "gif-largest": lambda: saved("P", (16, 16), "GIF").replace(struct.pack("<HH", 16, 16), b"\xff\xff\xff\xff"),
    "gif-million-blocks": lambda: b"GIF89a" + struct.pack("<HHBBB", 16, 16, 0, 0, 0) + b"!\xfe" + b"\x01a" * 3_000_000,
    "bmp-run-lengths": run_lengths,
    "ppm-text": ppm,
    "avif-at-the-limit": partial(saved, "RGB", (4900, 4900), "AVIF", speed=10),
}
