"""A small convolutional network that starts from nothing: for images unlike any photograph, and to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

SMALL_CNN = "small_cnn"


class SmallCnn(nn.Module):
    """Blocks of convolution, ReLU, pooling and dropout, then a dense layer: (n, 3, size, size) to (n, dense)."""

    SIZE: ClassVar[int] = 128

    def __init__(
        self,
        size: int = SIZE,
        filters: Sequence[int] = (32, 64, 128),
        dense: int = 128,
        dropout: float | Sequence[float] = 0.3,
    ) -> None:
        """``filters``: channels of each block. ``dropout``: after each block and after the dense layer, or all alike.

        ValueError where the image is too small for so many blocks.
        """
        super().__init__()
        rates = [dropout] * (len(filters) + 1) if isinstance(dropout, int | float) else list(dropout)
        if not filters or min(*filters, dense) < 1:
            raise ValueError("filters must hold a positive number for each block, and dense must be positive")
        if len(rates) != len(filters) + 1 or not all(0 <= r < 1 for r in rates):
            raise ValueError(f"dropout must be one rate in [0, 1), or {len(filters) + 1} of them")
        side = size >> len(filters)
        if side < 1:
            raise ValueError(f"{len(filters)} blocks halve {size} pixels to nothing: use fewer, or larger images")
        blocks: list[nn.Module] = []
        for before, after, rate in zip((3, *filters), filters, rates, strict=False):
            blocks += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(rate)]
        self.blocks = nn.Sequential(*blocks)
        self.dense = nn.Linear(filters[-1] * side * side, dense)
        self.last = nn.Dropout(rates[-1])

    def forward(self, images: Tensor) -> Tensor:
        """(n, dense) features, none negative."""
        hidden = self.dense(self.blocks(images).flatten(1))
        features: Tensor = self.last(nn.functional.relu(hidden))
        return features
