"""A dense layer between a network and the head: fewer features, shaped by the fine-tune (torch)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

UNITS, DROPOUT = "neck", "neck_dropout"  # of `backbone.options`


class Necked(nn.Module):
    """(n, 3, size, size) to (n, units) features, none negative. Random until the first fine-tune."""

    def __init__(self, body: nn.Module, features: int, units: Any, dropout: float) -> None:
        """ValueError where ``units`` is no positive number or ``dropout`` no rate in [0, 1)."""
        super().__init__()
        if not (isinstance(units, int) and units > 0 and 0 <= dropout < 1):
            raise ValueError(f"{UNITS} must be a number of units and {DROPOUT} a rate in [0, 1)")
        self.body = body
        self.neck = nn.Sequential(nn.Linear(features, units), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features through the dense layer."""
        features: Tensor = self.neck(self.body(images))
        return features


def split(options: Mapping[str, Any]) -> tuple[dict[str, Any], Any, float]:
    """What the network itself is built with, the neck's units (None: it has none) and its dropout."""
    own = {name: value for name, value in options.items() if name not in {UNITS, DROPOUT}}
    return own, options.get(UNITS), float(options.get(DROPOUT, 0.0))
