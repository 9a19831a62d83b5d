"""Image bytes to the pixels of one square or thumbnail: the only code that decides what a pixel is (Pillow, numpy)."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelloop.decoding.declared import Declared
from labelloop.errors import ImageUnreadableError

Pixels = NDArray[np.uint8]

Image.init()  # registers the parsers, so that all threads see the same ones
Image.MAX_IMAGE_PIXELS = None  # what is declared was weighed before, by format
ALLOWED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")  # EPS would start Ghostscript, PPM is text
FORMATS = tuple(f for f in ALLOWED if f in Image.OPEN)
ORIENTATION = 0x0112
BITS_PER_SAMPLE = 258  # a TIFF's tag
BAND = 65_536  # pixels converted at once: the copies of a conversion never add up to a second image
RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BY_VALUES, BY_FORMAT = "values", "format"
END_OF_JPEG = b"\xff\xd9"
FILLER = bytes(1 + i * 97 % 254 for i in range(4096))  # reads as pixels where any are missing


@dataclass(frozen=True, slots=True)
class Square:
    """What comes out: ``size`` pixels a side, from the middle ``crop`` of the short side (or all, squashed)."""

    size: int
    crop: float = 1.0  # share of the short side that is kept
    squash: bool = False  # ignore the aspect ratio instead of cropping
    interpolation: str = "bicubic"
    steps: tuple[Any, ...] = ()  # what follows, see `pixel_steps`
    depth: str = BY_VALUES  # how grays of more than 8 bits are scaled; backbones of before say nothing: `BY_FORMAT`

    @classmethod
    def of(cls, preprocessing: Any) -> Square:
        """From a backbone's recorded preprocessing."""
        return cls(
            int(preprocessing["size"]),
            float(preprocessing["crop"]),
            preprocessing["crop_mode"] == "squash",
            str(preprocessing["interpolation"]),
            tuple(preprocessing.get("steps", ())),
            str(preprocessing.get("depth", BY_FORMAT)),
        )

    @property
    def longest(self) -> int:
        """Pixels a side that are needed of the whole image."""
        return math.ceil(self.size / self.crop)


@dataclass(frozen=True, slots=True)
class Whole:
    """The whole image, no side above ``longest`` pixels: for people."""

    longest: int
    depth: str = BY_VALUES


Shape = Square | Whole


@contextmanager
def reading() -> Iterator[None]:
    """Whatever goes wrong inside is the image's fault."""
    try:
        yield
    except ImageUnreadableError:
        raise
    except MemoryError as error:
        raise ImageUnreadableError("the image needs more memory than its size explains: it is damaged") from error
    except Exception as error:  # PIL's parsers raise nearly anything on broken or hostile bytes
        raise ImageUnreadableError(f"the image cannot be decoded: {_reason(error)}") from error


def render(data: bytes, declared: Declared, shape: Shape) -> Pixels:
    """(height, width, 3) uint8 RGB, turned as its EXIF says, before any steps; ImageUnreadableError."""
    with reading():
        if not declared.cut_off:
            return _render(data, declared, shape)
        whole = _render(data + END_OF_JPEG, declared, shape)
        if not np.array_equal(whole, _render(data + FILLER + END_OF_JPEG, declared, shape)):
            raise ImageUnreadableError("the JPEG is cut off: a part of its pixels is missing. Copy the file again")
        return whole  # only its end mark is missing, or nothing that is to be seen


def _render(data: bytes, declared: Declared, shape: Shape) -> Pixels:
    image = _plain(_turned(_open(data, declared, shape.longest)), shape.depth)
    if isinstance(shape, Square):
        image = _squared(image, shape)
    else:
        image.thumbnail((shape.longest, shape.longest), Image.Resampling.BICUBIC)
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def _open(data: bytes, declared: Declared, side: int) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=(declared.format,))
    width, height = image.size
    if width * height > declared.pixels:
        raise ImageUnreadableError(f"the image has {width}×{height} pixels, but declares fewer: it is damaged")
    # JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, many times faster, and still above what is needed
    image.draft("RGB", (side, side))
    image.load()
    return image


def _turned(image: Image.Image) -> Image.Image:
    try:
        turn = TURNS.get(int(image.getexif().get(ORIENTATION, 1)))
    except Exception:  # a broken EXIF block does not make the pixels unreadable
        return image
    return image if turn is None else image.transpose(turn)


def _plain(image: Image.Image, depth: str) -> Image.Image:
    """Any mode to RGB, or L where all is gray: 16 bits and floats scaled down, transparency put on white."""
    if image.mode.startswith(("I", "F")):
        scale = _scale(image, depth)
        return _in_bands(image, "L", lambda part: Image.fromarray(_eight_bit(part, scale)))
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        return _in_bands(image, "RGB", _on_white)
    if image.mode in {"L", "RGB"}:
        return image
    return _in_bands(image, "RGB", lambda part: part.convert("RGB"))


def _in_bands(image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    out = Image.new(mode, image.size)
    for top, band in _bands(image):
        out.paste(convert(band), (0, top))
    return out


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    width, height = image.size
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def _on_white(part: Image.Image) -> Image.Image:
    layer = part.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _eight_bit(part: Image.Image, scale: float) -> Pixels:
    if part.mode == "F":
        values = np.nan_to_num(np.asarray(part, dtype=np.float64)) * scale
    else:
        values = np.asarray(part) // int(1 / scale)
    return values.clip(0, 255).astype(np.uint8)


def _scale(image: Image.Image, depth: str) -> float:
    """What its values are multiplied with, from the largest of them: 8, 12 or 16 bits, or a share of one.

    `BY_FORMAT`, for backbones that were recorded before: a file of 16 bits is taken to use them all.
    """
    most = max((_largest(band) for _, band in _bands(image)), default=0.0)
    if image.mode == "F" and most <= 1:
        return 255.0
    if depth == BY_FORMAT:
        return 1.0 if image.mode == "F" or (image.mode == "I" and most <= 255) else 1 / 256
    twelve = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE) == (12,)
    if not twelve and most <= (511 if image.mode == "F" else 255):  # floats of 8 bits may overshoot a little
        return 1.0
    return 1 / 16 if twelve or most <= 4095 else 1 / 256


def _largest(band: Image.Image) -> float:
    values = np.asarray(band)
    return float(values.max(initial=0, where=np.isfinite(values)) if band.mode == "F" else values.max(initial=0))


def _squared(image: Image.Image, square: Square) -> Image.Image:
    """Crop and resize in one step, so that only the pixels that are kept are filtered."""
    width, height = image.size
    side = min(width, height) * square.crop
    box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    if square.squash:
        box = (0.0, 0.0, float(width), float(height))
    how = RESAMPLING[square.interpolation]
    return image.resize((square.size, square.size), how, box=box, reducing_gap=3.0)


def _reason(error: Exception) -> str:
    text = str(error).split("<_io", maxsplit=1)[0].strip()  # PIL names the buffer's address
    return f"{text or 'unknown format'} ({type(error).__name__})"


def without_steps(shape: Shape) -> Shape:
    """What is left to decode: steps follow where the pixels are needed."""
    return replace(shape, steps=()) if isinstance(shape, Square) else shape
