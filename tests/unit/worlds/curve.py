"""Made-up versions whose errors follow a known curve, judged on images that are hard or easy for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from labelloop.records.curve import RIGHT, WRONG, KeptCurve, Point, Points
from labelloop.records.json import digest

LABELS = tuple(range(40, 401, 20))


def power(level: float, exponent: float, floor: float = 0.0) -> Callable[[float], float]:
    """Error over labels; ``level``: at 100."""
    return lambda n: floor + (level - floor) * (n / 100) ** -exponent


def points(error: Callable[[float], float], images: int, *, labels: Sequence[int] = LABELS, seed: int = 0) -> Points:
    """Most of an image's hardness is the same for all versions, as in life."""
    rng = np.random.default_rng(seed)
    hardness, luck = rng.random(images), rng.random((images, len(labels)))
    own = rng.random((images, len(labels))) < 0.15
    place = np.where(own, luck, hardness[:, None])
    wrong = place < np.array([error(n) for n in labels])
    return Points(np.array(labels, dtype=np.float64), wrong.astype(np.float64))


def kept(found: Points, **more: Any) -> KeptCurve:
    """As a worker keeps it."""
    wrong = ["".join(WRONG if w else RIGHT for w in column) for column in found.wrong.T]
    made = tuple(
        Point(f"v{i}", "refresh", int(n), "b", "linear", "2026-03-01T10:00:00Z", marks)
        for i, (n, marks) in enumerate(zip(found.labels, wrong, strict=True), 1)
    )
    values: dict[str, Any] = {
        "at": "2026-03-01T10:00:00Z", "snapshot": digest(b"s")[:32], "live": made[-1].version, "audit": 10,
        "test": len(found.wrong) - 10, "points": made, "left": 5000,
    }  # fmt: skip
    return KeptCurve(**{**values, **more})
