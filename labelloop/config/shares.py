"""Shares of the images that never train."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SplitShares:
    """Shares of the images, in [0, 1]; what is left is the train split."""

    test: float = 0.10
    audit: float = 0.05
