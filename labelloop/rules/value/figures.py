"""Looks in, shares, differences and times with their 95 % intervals out. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelloop.rules.intervals import Interval, newcombe, wilson
from labelloop.rules.value.looks import Look, Showing

FEW = 5  # answers without a pre-label, of one person, below which their times are not compared
NEWEST = 500  # shown ones whose times are resampled
DRAWS = 400

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rate:
    """How many of how many, with Wilson bounds; None where there is nothing to count."""

    hits: int
    of: int
    share: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Anchoring:
    """What seeing the model's answer does, on images of the same kind."""

    shown: Rate  # took the answer that they saw
    hidden: Rate  # gave the same answer without seeing it
    effect: Interval | None  # the difference; None where one of them is empty


@dataclass(frozen=True, slots=True)
class AnswerTimes:
    """Seconds for an answer on chosen images; medians, so that a break beside the open page counts for nothing."""

    shown: float | None = None
    hidden: float | None = None
    saved: Interval | None = None  # minutes up to now, over ``people``
    people: int = 0  # who had FEW answers of either kind
    left_out: int = 0  # shown answers of all others


@dataclass(frozen=True, slots=True)
class Checked:
    """What others have said of the answers. Nobody knows the truth; most answers are seen by one person only."""

    shown: Rate  # right, of those shown with a pre-label that somebody else answered, too
    blind: Rate  # the same of those without
    corrected_shown: Rate  # changed by somebody else since, of all
    corrected_blind: Rate


@dataclass(frozen=True, slots=True)
class ClassOverrides:
    """One class as the model named it."""

    name: str
    overrides: Rate  # of the pre-labels that were shown
    instead: str | None = None  # what people said most often ...
    times: int = 0  # ... and how often


def rate(hits: int, of: int) -> Rate:
    """A share with its bounds."""
    return Rate(hits, of, hits / of if of else None, *wilson(hits, of))


def share(looks: Iterable[Look], *, departed: bool) -> Rate:
    """How many departed from the model, or did not; skips are left out."""
    departures = [look.departed for look in looks if not look.skipped]
    return rate(sum(d is departed for d in departures), len(departures))


def of_kind(looks: Iterable[Look], *kinds: Showing) -> list[Look]:
    """Those that came so."""
    return [look for look in looks if look.kind in kinds]


def anchoring(looks: Sequence[Look]) -> Anchoring:
    """Only chosen images: what is drawn at random is easier."""
    shown = share(of_kind(looks, Showing.SHOWN), departed=False)
    hidden = share(of_kind(looks, Showing.HIDDEN), departed=False)
    if shown.share is None or hidden.share is None:
        return Anchoring(shown, hidden, None)
    low, high = newcombe((shown.hits, shown.of), (hidden.hits, hidden.of))
    return Anchoring(shown, hidden, Interval(shown.share - hidden.share, low, high))


def checked(looks: Sequence[Look]) -> Checked:
    """By a ground truth, by somebody else's answer, by a later correction."""
    shown, blind = of_kind(looks, Showing.SHOWN), of_kind(looks, Showing.HIDDEN, Showing.DRAWN)
    return Checked(_right(shown), _right(blind), _corrected(shown), _corrected(blind))


def classes(looks: Sequence[Look]) -> tuple[ClassOverrides, ...]:
    """Those that are surely overridden often come first."""
    shown = [look for look in of_kind(looks, Showing.SHOWN) if look.predicted is not None and not look.skipped]
    names = {look.predicted for look in shown if look.predicted is not None}
    rows = [_class_row(name, [look for look in shown if look.predicted == name]) for name in names]
    return tuple(sorted(rows, key=lambda row: (-row.overrides.low, row.name)))


def times(people: Mapping[int, Sequence[Look]]) -> AnswerTimes:
    """Each person is compared with themselves: minutes saved are shown answers x their difference of medians.

    The interval is a bootstrap over answers, each person's and kind's by themselves, the last NEWEST of them.
    """
    looks = [look for own in people.values() for look in own]
    pairs = [(_seconds(own, Showing.SHOWN), _seconds(own, Showing.HIDDEN)) for own in people.values()]
    enough = [(s, h) for s, h in pairs if min(len(s), len(h)) >= FEW]
    rest = sum(len(s) for s, h in pairs if min(len(s), len(h)) < FEW)
    shown, hidden = (median(of_kind(looks, kind)) for kind in (Showing.SHOWN, Showing.HIDDEN))
    return AnswerTimes(shown, hidden, _saved(enough) if enough else None, len(enough), rest)


def median(looks: Iterable[Look]) -> float | None:
    """Seconds; None where no time is known."""
    seconds = [look.seconds for look in looks if look.seconds is not None]
    return float(np.median(seconds)) if seconds else None


def _right(looks: Iterable[Look]) -> Rate:
    verdicts = [look.right for look in looks if look.right is not None]
    return rate(sum(verdicts), len(verdicts))


def _corrected(looks: Sequence[Look]) -> Rate:
    return rate(sum(look.corrected for look in looks), len(looks))


def _class_row(name: str, looks: Sequence[Look]) -> ClassOverrides:
    instead = Counter(look.said for look in looks if look.departed and look.said is not None).most_common(1)
    other, count = instead[0] if instead else (None, 0)
    return ClassOverrides(name, share(looks, departed=True), other, count)


def _seconds(looks: Iterable[Look], kind: Showing) -> Doubles:
    return np.array([look.seconds for look in of_kind(looks, kind) if look.seconds is not None], dtype=np.float64)


def _saved(pairs: Sequence[tuple[Doubles, Doubles]]) -> Interval:
    """Minutes."""
    random = np.random.default_rng(0)
    drawn = sum(len(s) * (_medians(h, random) - _medians(s, random)) for s, h in pairs)
    low, high = np.quantile(drawn, (0.025, 0.975)) / 60
    value = sum(len(s) * float(np.median(h) - np.median(s)) for s, h in pairs) / 60
    return Interval(value, float(low), float(high))


def _medians(seconds: Doubles, random: np.random.Generator) -> Doubles:
    """Of DRAWS samples with replacement (DRAWS,)."""
    newest = seconds[-NEWEST:]
    return np.asarray(np.median(random.choice(newest, (DRAWS, len(newest))), axis=1), dtype=np.float64)
