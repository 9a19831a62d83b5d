"""The built-in backbone: needs no weights, fits small simple images, and can be fine-tuned like any other."""

from __future__ import annotations

import hashlib
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from labelloop.config.networks import PIXEL_SIDE


class PixelNet(nn.Module):
    """(n, 3, size, size) floats in [0, 1] to contrast-normalised gray pixels, a ReLU projection of them, and colour.

    Sizes were picked on scikit-learn's digits (mean accuracy of a logistic regression on 200 random labels).
    """

    SIZE: ClassVar[int] = PIXEL_SIDE
    GRID: ClassVar[int] = 4  # cells a side in which colour is averaged

    def __init__(self, size: int = SIZE, projection: int = 512) -> None:
        super().__init__()
        if size < self.GRID or projection < 1:
            raise ValueError(f"size must be {self.GRID} or more, projection positive")
        self.projection = nn.Linear(size * size, projection)
        with torch.no_grad():
            self.projection.weight.copy_(_normal(projection, size * size, "weight") / size)
            self.projection.bias.copy_(_normal(projection, 1, "bias").flatten() / 2)

    def forward(self, images: Tensor) -> Tensor:
        """(n, size² + projection + 2·GRID² + 2) features."""
        gray = images.mean(dim=1).flatten(1)
        mean, spread = gray.mean(dim=1, keepdim=True), gray.std(dim=1, keepdim=True)
        pattern = (gray - mean) / (spread + 1e-2)
        hidden = functional.relu(self.projection(pattern))
        return torch.cat([pattern, hidden, self._colour(images), mean, spread], dim=1)

    def _colour(self, images: Tensor) -> Tensor:
        """Two opponent channels on a coarse grid; zero for a gray image."""
        red, green, blue = functional.adaptive_avg_pool2d(images, self.GRID).unbind(dim=1)
        return torch.stack([red - green, blue - (red + green) / 2], dim=1).flatten(1)


def _normal(rows: int, columns: int, name: str) -> Tensor:
    """(rows, columns) nearly standard normal. Sums of hashed bytes: exact, so equal on every machine for ever."""
    raw = hashlib.shake_256(f"labelloop pixels {name}".encode()).digest(rows * columns * 8)
    sums = np.frombuffer(raw, dtype=np.uint8).reshape(rows, columns, 8).astype(np.int64).sum(axis=2)
    return torch.from_numpy(((sums - 8 * 127.5) / np.sqrt(8 * (256**2 - 1) / 12)).astype(np.float32))
