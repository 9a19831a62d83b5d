"""Counts in, 95 % intervals of shares out: what every room needs. Pure, without numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its bounds: 95 %, unless its place says otherwise."""

    value: float
    low: float
    high: float


def wilson(right: int, n: int) -> tuple[float, float]:
    """95 % Wilson bounds of a proportion; (0, 1) where n is 0."""
    if n == 0:
        return 0.0, 1.0
    share, square = right / n, Z95**2
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = Z95 / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def newcombe(one: tuple[int, int], other: tuple[int, int]) -> tuple[float, float]:
    """95 % interval of the first share minus the second, each as (count, n): Newcombe 1998, method 10.

    (-1, 1) where one of them has no cases.
    """
    if not (one[1] and other[1]):
        return -1.0, 1.0
    (p, low_p, high_p), (q, low_q, high_q) = _bounds(*one), _bounds(*other)
    return p - q - math.hypot(p - low_p, high_q - q), p - q + math.hypot(high_p - p, q - low_q)


def _bounds(right: int, n: int) -> tuple[float, float, float]:
    return right / n, *wilson(right, n)
