"""Versions judged on the same random labels in, their learning curve and its forecasts out. Pure.

The error at n labels is today's error times a form of n: a power law, with or without a floor (Hestness et al. 2017,
arXiv 1712.00409), or an exponential. How a curve goes on is what its points tell least (Viering and Loog 2021, arXiv
2103.10948), so none of the forms is picked: each counts by how well it goes through the points, and all speak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelloop.records.curve import Doubles, Points

POINTS = 12  # that are fitted, spread evenly over the label counts: neighbours say the same
REACH_BACK = 8.0  # points with this many times fewer labels are left out: classes were still missing there
DRAWS = 2000
WOBBLE = 0.06  # one head's error around the curve, as a share of it (.02 to .08 on four data sets)
DRIFT = 0.4  # the same of a form at e times fewer labels than now: forms are true nearby
LOOSE = 0.25  # by how much more the points vary each on its own: what few images say of how they go together is noise
FAR = 10.0  # times today's labels: nothing is said of what lies beyond
STEPS = 400  # label counts that are looked at between now and there

FLOORS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0)  # of the error, as a share of today's; 1: nothing more to gain
FLOOR_PRIOR = (2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5)
EXPONENTS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0)  # of the power law
USUAL, SPREAD = 0.5, 0.9  # exponents before any point is seen: log-normal, median and standard deviation of its log
LENGTHS = (0.15, 0.3, 0.6, 1.0, 2.0, 4.0)  # of the exponential, in today's labels
EXPONENTIAL = 0.25  # its share before any point is seen

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ForecastInterval:
    """A figure with what is 80 % and 95 % sure of it."""

    middle: float
    low: float
    high: float
    lowest: float
    highest: float

    @property
    def width(self) -> float:
        """Of the 95 %."""
        return self.highest - self.lowest


@dataclass(frozen=True, slots=True)
class Reach:
    """How many more labels to a target: median and 80 %; None: more than the curve can tell of."""

    middle: int | None
    low: int | None
    high: int | None


@dataclass(frozen=True, slots=True)
class ForecastCurve:
    """What is likely of the curve, as draws. ``more`` counts labels that people give, of which a part trains."""

    now: float  # train labels of the champion
    images: int  # random labels that judge
    share: float  # of the labels that people give: those that train
    form: Ints  # (draws,)
    error: Doubles  # (draws,) of the curve now
    heads: Doubles  # (draws, 2): how far the head now, and a later one, are off the curve

    def accuracy(self, more: int = 0) -> ForecastInterval:
        """Of the head after so many more labels, in [0, 1]."""
        return interval(self.accuracies(more))

    def accuracies(self, more: int = 0) -> Doubles:
        """(draws,)."""
        off = self.heads[:, 1 if more else 0]
        return np.clip(1 - self._errors([more])[:, 0] * (1 + WOBBLE * off), 0.0, 1.0)

    def gain(self, more: int) -> ForecastInterval:
        """What so many more labels add to the accuracy, by the curve: one head's luck is not part of it."""
        return interval(self.gains(more))

    def gains(self, more: int) -> Doubles:
        """(draws,)."""
        return self.error - self._errors([more])[:, 0]

    def track(self, more: Sequence[int]) -> list[ForecastInterval]:
        """The curve itself, for a picture."""
        return [interval(1 - errors) for errors in self._errors(more).T]

    def to(self, target: float) -> Reach:
        """Labels until the curve is at an accuracy."""
        ahead = (np.geomspace(1.0, FAR, STEPS) - 1) * self.now / self.share
        reached = self._errors(np.asarray(ahead)) <= 1 - target
        first = np.where(reached.any(axis=1), ahead[reached.argmax(axis=1)], np.inf)
        return Reach(*(_whole(np.quantile(first, q, method="inverted_cdf")) for q in (0.5, 0.1, 0.9)))

    @property
    def horizon(self) -> int:
        """The furthest that anything is said of."""
        return int((FAR - 1) * self.now / self.share)

    def _errors(self, more: Sequence[float] | Doubles) -> Doubles:
        """(draws, more)."""
        ahead = 1 + np.asarray(more, dtype=np.float64) * self.share / self.now
        return np.asarray(_forms(ahead)[self.form] * self.error[:, None])


def curve_of(points: Points, *, share: float = 1.0, seed: int = 0) -> ForecastCurve:
    """Weigh the forms by the points, then draw from them with the random labels resampled (Rubin's bootstrap).

    One row of ``wrong`` is one image for all versions, so that what is hard about the images drawn is told apart from
    what the labels did. An image that all get right and one that all get wrong are added: few labels prove little.
    """
    rng = np.random.default_rng(seed)
    used = _spread(points.labels)
    labels, wrong = points.labels[used], points.wrong[:, used]
    rows, counts = _patterns(wrong)
    mean, covariance = _moments(rows, counts)
    alone = LOOSE * np.diag(covariance) + _doubt(labels, mean) ** 2
    precision = np.linalg.inv(covariance + np.diag(alone))
    forms = _forms(labels / labels[-1])
    pull = forms @ precision
    levels = pull / np.einsum("fv,fv->f", pull, forms)[:, None]  # (forms, versions): today's error from all points
    residual = mean - (levels @ mean)[:, None] * forms
    evidence = np.log(_prior()) - 0.5 * np.einsum("fv,vw,fw->f", residual, precision, residual)
    weight = np.exp(evidence - evidence.max())
    form = rng.choice(len(forms), DRAWS, p=weight / weight.sum()).astype(np.int64)
    drawn = rng.dirichlet(counts, DRAWS) @ rows
    error = np.clip(np.einsum("dv,dv->d", levels[form], drawn), 1e-4, 1.0)
    return ForecastCurve(float(labels[-1]), len(wrong), share, form, error, rng.standard_normal((DRAWS, 2)))


def interval(draws: Doubles) -> ForecastInterval:
    """Of a figure that was drawn many times."""
    return ForecastInterval(*(float(v) for v in np.quantile(draws, (0.5, 0.1, 0.9, 0.025, 0.975))))


def _spread(labels: Doubles) -> Ints:
    """At most `POINTS` of them; of equal counts the last."""
    last = np.flatnonzero(np.append(np.diff(labels) > 0, True))
    near = last[labels[last] * REACH_BACK >= labels[-1]]
    if len(near) <= POINTS:
        return np.asarray(near, dtype=np.int64)
    targets = np.linspace(labels[near[0]], labels[near[-1]], POINTS)
    return np.unique(np.array([near[np.abs(labels[near] - w).argmin()] for w in targets], dtype=np.int64))


def _patterns(wrong: Doubles) -> tuple[Doubles, Doubles]:
    """Different rows and how many images have each, with the two that are added."""
    ends = np.repeat([[0.0], [1.0]], wrong.shape[1], axis=1)
    rows, counts = np.unique(np.concatenate([wrong, ends]), axis=0, return_counts=True)
    return rows, counts.astype(np.float64)


def _moments(rows: Doubles, counts: Doubles) -> tuple[Doubles, Doubles]:
    """The versions' errors (versions,), and how they would vary together with other images (versions, versions)."""
    total = counts.sum()
    mean = counts @ rows / total
    apart = rows - mean
    return mean, (apart * counts[:, None]).T @ apart / (total * (total + 1))


def _doubt(labels: Doubles, mean: Doubles) -> Doubles:
    """How far a true curve of these forms may be off each point; small at the last, which it is asked about."""
    back = np.log(labels[-1] / labels)
    return np.asarray(mean[-1] * np.sqrt(WOBBLE**2 + (DRIFT * back) ** 2))


def _forms(ahead: Doubles) -> Doubles:
    """(forms, ahead): the error as a share of today's, at so many times today's labels."""
    floors = np.array(FLOORS)[:, None, None]
    power = ahead ** -np.array(EXPONENTS)[:, None]
    fading = np.exp((1 - ahead) / np.array(LENGTHS)[:, None])
    kinds = [floors + (1 - floors) * power, floors[:-1] + (1 - floors[:-1]) * fading]
    return np.concatenate([kind.reshape(-1, len(ahead)) for kind in kinds])


def _prior() -> Doubles:
    """(forms,), in the order of `_forms`."""
    exponents = np.exp(-0.5 * (np.log(np.array(EXPONENTS) / USUAL) / SPREAD) ** 2)
    power = np.outer(FLOOR_PRIOR, exponents).ravel()
    fading = np.ones((len(FLOORS) - 1) * len(LENGTHS))
    return np.concatenate([(1 - EXPONENTIAL) * power / power.sum(), EXPONENTIAL * fading / fading.sum()])


def _whole(labels: float) -> int | None:
    return int(np.ceil(labels)) if np.isfinite(labels) else None
