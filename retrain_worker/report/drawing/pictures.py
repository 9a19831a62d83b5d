"""Pixels in, small pictures for a page out, as data addresses."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from labelloop.decoding.square import Pixels
from labelloop.records.arrays import Floats

SIDE = 160  # pixels of the longer side
QUALITY = 80
STRONGEST = 0.85  # how much a map's 1 hides of the image
FAINT = 0.7  # below 1: single pixels, as Integrated Gradients finds them, stay visible


def jpeg(image: Pixels) -> str:
    """(3, H, W) uint8, shrunk to `SIDE`."""
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return address("image/jpeg", buffer.getvalue())


def overlay(image: Pixels, heat: Floats) -> Pixels:
    """The image in gray and dimmed, the map (H, W) in [0, 1] over it: bright is much."""
    import matplotlib as mpl

    gray = image.mean(axis=0, dtype=np.float32)[..., None] * 0.7
    colour = mpl.colormaps["inferno"](0.25 + 0.75 * heat)[..., :3] * 255
    strength = STRONGEST * heat[..., None] ** FAINT
    mixed = gray * (1 - strength) + colour * strength
    return np.ascontiguousarray(mixed.clip(0, 255).astype(np.uint8).transpose(2, 0, 1))


def address(kind: str, data: bytes) -> str:
    """`data:` with these bytes."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
