"""Image bytes in, one square of pixels out: the same for serving, featurising, training and evaluation."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelloop import pixel_steps
from labelloop.errors import ImageUnreadableError

Pixels = NDArray[np.uint8]

Image.init()  # registers the parsers, so that all threads see the same ones
ALLOWED = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")  # EPS would start Ghostscript
FORMATS = tuple(f for f in ALLOWED if f in Image.OPEN)
MAX_PIXELS = 89_000_000  # just below the size at which PIL begins to warn
ORIENTATION = 0x0112
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


@dataclass(frozen=True, slots=True)
class Square:
    """What comes out: ``size`` pixels a side, from the middle ``crop`` of the short side (or all, squashed)."""

    size: int
    crop: float = 1.0  # share of the short side that is kept
    squash: bool = False  # ignore the aspect ratio instead of cropping
    interpolation: str = "bicubic"
    steps: tuple[Any, ...] = ()  # what follows, see `pixel_steps`

    @classmethod
    def of(cls, preprocessing: Any) -> Square:
        """From a backbone's recorded preprocessing."""
        return cls(
            int(preprocessing["size"]),
            float(preprocessing["crop"]),
            preprocessing["crop_mode"] == "squash",
            str(preprocessing["interpolation"]),
            tuple(preprocessing.get("steps", ())),
        )


def decode(data: bytes, square: Square) -> Pixels:
    """(3, size, size) uint8 RGB, turned as its EXIF says; ImageUnreadableError says why not."""
    with _readable(data):
        image = _squared(_upright(data, math.ceil(square.size / square.crop)), square)
        pixels = pixel_steps.apply(np.asarray(image, dtype=np.uint8), square.steps)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def shrink(data: bytes, longest: int) -> Pixels:
    """The whole image, (3, H, W) uint8 RGB with no side above ``longest``: for people. ImageUnreadableError."""
    with _readable(data):
        image = _upright(data, longest)
        image.thumbnail((longest, longest), Image.Resampling.BICUBIC)
        return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))


@contextmanager
def _readable(data: bytes) -> Iterator[None]:
    """Whatever goes wrong inside is the image's fault."""
    if not data:
        raise ImageUnreadableError("the image is empty (0 bytes)")
    try:
        yield
    except ImageUnreadableError:
        raise
    except Exception as error:  # PIL's parsers raise nearly anything on broken or hostile bytes
        raise ImageUnreadableError(f"the image cannot be decoded: {_reason(error)}") from error


def _upright(data: bytes, wanted: int) -> Image.Image:
    """RGB, turned as its EXIF says, no side much smaller than ``wanted`` if the image has so many pixels."""
    return _rgb(_turned(_open(data, wanted)))


def _open(data: bytes, wanted: int) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageUnreadableError(f"the image has {width}×{height} pixels; the limit is {MAX_PIXELS:,}")
    # JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, many times faster, and still above what is needed
    image.draft("RGB", (wanted, wanted))
    image.load()
    return image


def _turned(image: Image.Image) -> Image.Image:
    try:
        turn = TURNS.get(int(image.getexif().get(ORIENTATION, 1)))
    except Exception:  # a broken EXIF block does not make the pixels unreadable
        return image
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB: 16 bits and floats scaled down, transparency put on white."""
    if image.mode.startswith(("I", "F")):
        return _eight_bit(image).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    if image.mode == "F":
        values = values * (255.0 if values.max(initial=0) <= 1 else 1.0)
    elif image.mode != "I" or values.max(initial=0) > 255:
        values = values / 256.0
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


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
