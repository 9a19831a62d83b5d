"""Curves of several seeds in, what a strategy saves against random out, with intervals over the seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from labelloop.rules.intervals import Interval
from retrain_worker.replay.arm import ArmCurve

ROUNDS = 1000

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Saving:
    """One strategy against random."""

    strategy: str
    labels: float  # to reach random's final accuracy; infinite: never within the budget
    times_fewer: Interval  # labels that random needs for it / labels that this one needs
    area: float  # mean accuracy over the checkpoints
    gain: Interval  # of the area against random's
    worst: Interval  # the lowest difference to random at a checkpoint, in accuracy
    worst_at: int  # labels


def compare(curves: Sequence[ArmCurve], random: Sequence[ArmCurve], name: str, *, seed: int = 0) -> Saving:
    """The i-th curve of each is of the same draw."""
    counts = min((c.labels for c in (*curves, *random)), key=len)
    ours, theirs = (np.array([c.accuracy[: len(counts)] for c in arm]) for arm in (curves, random))
    n = np.array(counts, dtype=np.float64)
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(ours), size=(ROUNDS, len(ours)))
    ratios = np.array([_ratio(n, ours[d].mean(axis=0), theirs[d].mean(axis=0)) for d in draws])
    gains = (ours.mean(axis=1) - theirs.mean(axis=1))[draws].mean(axis=1)
    apart = ours - theirs
    worst = int(apart.mean(axis=0).argmin())
    at_worst = apart[:, worst][draws].mean(axis=1)
    mean, base = ours.mean(axis=0), theirs.mean(axis=0)
    return Saving(
        strategy=name, labels=reached(n, mean, _final(base)), times_fewer=_interval(_ratio(n, mean, base), ratios),
        area=float(mean.mean()), gain=_interval(float(apart.mean()), gains),
        worst=_interval(float(apart[:, worst].mean()), at_worst), worst_at=counts[worst],
    )  # fmt: skip


def reached(n: Doubles, accuracy: Doubles, target: float) -> float:
    """Labels at which a mean curve reaches ``target``, between checkpoints by a straight line; infinite: never.

    The curve is made to rise (isotonic regression) first: a single lucky checkpoint does not count.
    """
    rising = _rising(accuracy)
    at = int(np.searchsorted(rising, target - 1e-12))
    if at == len(rising):
        return float("inf")
    if at == 0:
        return float(n[0])
    low, high = rising[at - 1], rising[at]
    return float(n[at - 1] + (n[at] - n[at - 1]) * (target - low) / (high - low))


def _ratio(n: Doubles, ours: Doubles, random: Doubles) -> float:
    target = _final(random)
    return reached(n, random, target) / reached(n, ours, target)


def _final(random: Doubles) -> float:
    return float(_rising(random)[-1])


def _rising(accuracy: Doubles) -> Doubles:
    return np.asarray(isotonic_regression(accuracy).x, dtype=np.float64)


def _interval(value: float, drawn: Doubles) -> Interval:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value, float(low), float(high))
