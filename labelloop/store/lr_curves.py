"""Learning rates and losses of a range test in, the rate to take out; and where such curves are kept."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from labelloop.errors import AlreadyExistsError
from labelloop.objects.formats import Kind, load, write
from labelloop.objects.storage import ObjectStore

PREFIX = "lr_curves/"
SMOOTHING = 0.9  # of the running mean; corrected for its start as Adam corrects its moments
EDGE = 0.1  # share of the points left out on both sides: the start is noise, the end has diverged


@dataclass(frozen=True, slots=True)
class LrCurve:
    """One range test: the rate rises from step to step, ``losses`` are as they were, ``smooth`` averaged."""

    name: str
    by: str
    at: str
    snapshot: str
    optimiser: str
    batch_size: int
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smooth: tuple[float, ...]
    suggestion: float | None  # where the smoothed loss falls fastest; None: it never falls
    diverged_at: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def smoothed(losses: Sequence[float]) -> list[float]:
    """Exponential running mean without the bias towards its start."""
    mean, means = 0.0, []
    for i, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        means.append(mean / (1 - SMOOTHING**i))
    return means


def steepest(rates: Sequence[float], smooth: Sequence[float]) -> float | None:
    """The rate at which the loss falls fastest per order of magnitude (Smith 2017, as fastai and Lightning)."""
    edge = max(1, round(EDGE * len(rates)))
    if len(rates) < 2 * edge + 3:
        return None
    inner = slice(edge, len(rates) - edge)
    slope = np.gradient(np.asarray(smooth[inner]), np.log10(np.asarray(rates[inner])))
    place = int(slope.argmin())
    return float(rates[inner][place]) if slope[place] < 0 else None


def keep(store: ObjectStore, curve: LrCurve) -> None:
    """Under its name; the first one stays."""
    with suppress(AlreadyExistsError):
        store.put(f"{PREFIX}{curve.name}.json", write(Kind.LR_CURVE, curve.to_json()), if_absent=True)


def kept(store: ObjectStore, name: str) -> LrCurve:
    """NotFoundError where there is none (yet); CorruptObjectError."""
    key = f"{PREFIX}{name}.json"
    return load(Kind.LR_CURVE, store.get(key), LrCurve, key)
