"""Sureness and correctness of a random audit sample in, the sureness from which a model may label alone out. Pure.

Whether the labels keep the promise is tested exactly, without a model of the errors. Forty thresholds, given by shares
of the images and so by no label, are tried in one order that is fixed beforehand, the surest first; the first that
fails ends it. Such a search needs no correction: to promise too much it must pass the first threshold at which the
promise is wrong, and there one test errs (fixed sequence testing; "learn then test", arXiv 2110.01052).

The sample speaks for all images, the promise is about those that nobody has labelled. People took images away from
these, mostly hard ones, but right answers among them, too. So every wrong answer that there may be among all images is
taken to lie in what is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, gammaln

from labelloop.records.arrays import Floats

STEPS = 40  # thresholds that are tried, at most
FORGIVEN = 2  # the first is where so many wrong answers may stand (one stray error must not end the search), or fewer,
# so that it lies in the surer half of the images
AGAIN = 5  # a second start is where as many may stand as one in so many of the wrong ones that all images may have
GROWTH = 1.05  # of the audit labels, from one guess to the next of how many would do
OWN = 3  # where asked for, a class stands alone from so many times the audit images on that would do without any error

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Promise:
    """Of the labels given, so large a share is right, as people would have labelled the images; both in (0, 1)."""

    precision: float = 0.95
    confidence: float = 0.95  # over the draw of the audit images
    per_class: bool = False  # also of the labels of each class that has audit images enough; this costs coverage

    @property
    def least(self) -> int:
        """Audit images that would do for the surest answers if none were wrong, with a pool without end."""
        return math.ceil(math.log(1 - self.confidence) / math.log(self.precision) - 1e-9)


@dataclass(frozen=True, slots=True)
class PoolAnswers:
    """What the model says of images: class numbers (n,) and their calibrated probabilities (n,)."""

    classes: Ints
    sureness: Floats


@dataclass(frozen=True, slots=True)
class Audit:
    """Images drawn at random from ``drawn_from`` images, those that people have labelled included."""

    answers: PoolAnswers
    wrong: Bools  # (n,) whether people said anything else
    drawn_from: int


@dataclass(frozen=True, slots=True)
class ClassPart:
    """Classes that share a threshold, and what speaks for it; refused where there is none."""

    classes: tuple[int, ...]
    images: int  # of the pool, which the model takes for one of these classes
    audit: int  # audit images at or above the threshold; where it is refused, where the search ended
    wrong: int  # of which the model's answer is wrong
    threshold: float | None = None
    labelled: int = 0  # of ``images`` at or above the threshold
    bound: float | None = None  # lower bound of their precision, at the level of one test
    further: int | None = None  # refused: audit labels that would do if they turn out like those there are; None: none


@dataclass(frozen=True, slots=True)
class AutoLabelDecision:
    """What may be labelled; nothing where every part is refused."""

    promise: Promise
    drawn: int  # audit images
    parts: tuple[ClassPart, ...]

    @property
    def labelled(self) -> int:
        """Images of the pool that get a label."""
        return sum(part.labelled for part in self.parts)

    @property
    def coverage(self) -> float:
        """Their share of the pool; 0 where it is empty."""
        return self.labelled / max(1, sum(part.images for part in self.parts))

    def why(self, part: ClassPart) -> str:
        """Why a part is refused, and what to do, in words."""
        if not part.images:
            return "no image is left to label"
        errors = f"{part.wrong} of {part.audit} audit images wrong"
        least = self.promise.least
        promise = f"{percent(self.promise.precision)} at a confidence of {percent(self.promise.confidence)}"
        needs = (
            f"{least} of {self.drawn} without an error"
            if self.drawn >= least
            else (f"{least} without an error, have {self.drawn}")
        )
        return (
            f"{errors if self.drawn else 'no audit label yet'}; a promise of {promise} needs {needs}; {_remedy(part)}"
        )

    def accepts(self, answers: PoolAnswers) -> Bools:
        """Which of these answers (n,) may stand as labels."""
        accepted = np.zeros(len(answers.classes), dtype=np.bool_)
        for part in self.parts:
            if part.threshold is not None:
                accepted |= np.isin(answers.classes, part.classes) & (answers.sureness >= part.threshold)
        return accepted


def percent(share: float) -> str:
    """A share in [0, 1] for people, as exact as it was given."""
    return f"{100 * share:.6g} %"


def _remedy(part: ClassPart) -> str:
    if part.further is None:
        return "more audit labels do not help: the model must improve first"
    return f"about {part.further} more audit labels needed at this error rate"


@dataclass(frozen=True, slots=True)
class _Steps:
    """Thresholds, the surest first, and how many images lie at or above each. Columns (steps,)."""

    threshold: Floats
    pool: Ints
    audit: Ints
    wrong: Ints

    def row(self, place: int) -> tuple[int, int, int]:
        """(pool, audit, wrong) at one of them; the last holds every image."""
        return int(self.pool[place]), int(self.audit[place]), int(self.wrong[place])


@dataclass(frozen=True, slots=True)
class _Test:
    """Whether so few wrong audit answers can be luck."""

    drawn_from: int
    drawn: int
    precision: float
    level: float  # how often luck may pass for evidence

    def luck(self, allowed: Ints, wrong: Ints | int) -> Doubles:
        """(n,) how likely so few wrong ones are in the sample where one more than ``allowed`` (n,) are wrong in all."""
        return few(self.drawn_from, allowed + 1, self.drawn, wrong)

    def allowed(self, pool: Ints) -> Ints:
        """(n,) wrong ones among so many labels that the promise allows."""
        return np.asarray(np.floor((1 - self.precision) * pool + 1e-9), dtype=np.int64)

    def most_wrong(self, wrong: int, level: float) -> int:
        """Upper bound of the wrong answers among all images that were drawn from, by those in the sample."""
        low, high = wrong, self.drawn_from  # luck falls as they grow
        while low < high:
            middle = (low + high + 1) // 2
            likely = self.luck(np.array([middle - 1]), wrong)[0] > level
            low, high = (middle, high) if likely else (low, middle - 1)
        return low


class _Guess(_Test):
    """The same by the binomial distribution: never kinder, and quick for many audit images."""

    def luck(self, allowed: Ints, wrong: Ints | int) -> Doubles:
        return np.asarray(bdtr(wrong, self.drawn, (allowed + 1) / self.drawn_from), dtype=np.float64)


def few(images: int, bad: Ints, drawn: int, wrong: Ints | int) -> Doubles:
    """(n,) probability that at most ``wrong`` of ``drawn`` images are bad where ``bad`` (n,) of all ``images`` are.

    The hypergeometric distribution, as scipy.stats has it, fast for many at once.
    """
    limits = np.broadcast_to(wrong, bad.shape)
    counts = np.arange(int(limits.max(initial=-1)) + 1)[:, None]
    possible = (counts <= limits) & (counts <= bad) & (drawn - counts <= images - bad) & (counts <= drawn)
    ways = _choose(bad, counts) + _choose(images - bad, drawn - counts) - _choose(np.array(images), np.array(drawn))
    return np.asarray(np.exp(np.where(possible, ways, -np.inf)).sum(axis=0), dtype=np.float64)


def _choose(of: Ints, some: Ints) -> Doubles:
    """Logarithm of the number of ways; of no use where there is none."""
    return np.asarray(gammaln(of + 1) - gammaln(some + 1) - gammaln(np.maximum(of - some, 0) + 1), dtype=np.float64)


def decide(audit: Audit, pool: PoolAnswers, promise: Promise) -> AutoLabelDecision:
    """Which answers for the ``pool`` may stand as labels; the promise is kept by all parts at once."""
    parts = parts_of(audit, pool, promise)
    level = (1 - promise.confidence) / max(1, len(parts))
    test = _Test(audit.drawn_from, len(audit.wrong), promise.precision, level)
    return AutoLabelDecision(promise, len(audit.wrong), tuple(_part(classes, audit, pool, test) for classes in parts))


def parts_of(audit: Audit, pool: PoolAnswers, promise: Promise) -> list[tuple[int, ...]]:
    """The classes that the model names, as they share thresholds: by how many audit images there are, not how good."""
    named, counts = np.unique(np.concatenate([audit.answers.classes, pool.classes]), return_counts=True)
    if not promise.per_class:
        return [tuple(int(name) for name in named)]
    expected = counts * (len(audit.wrong) / max(1, counts.sum()))
    enough = OWN * math.log((1 - promise.confidence) / max(1, len(named))) / math.log(promise.precision)
    own: list[tuple[int, ...]] = [(int(name),) for name, n in zip(named, expected, strict=True) if n >= enough]
    others = tuple(int(name) for name, n in zip(named, expected, strict=True) if n < enough)
    return [*own, others] if others else own


def _part(classes: tuple[int, ...], audit: Audit, pool: PoolAnswers, test: _Test) -> ClassPart:
    steps = _steps(classes, audit, pool)
    if not len(steps.pool):
        return ClassPart(classes, 0, 0, 0)
    images, starts = int(steps.pool[-1]), _starts(steps, test)
    last = _search(steps, test, starts)
    if last is None:
        _, checked, wrong = steps.row(min(starts, default=-1))
        return ClassPart(classes, images, checked, wrong, further=_further(steps, test))
    place, level = last
    labelled, checked, wrong = steps.row(place)
    bound = 1 - test.most_wrong(wrong, level) / labelled
    return ClassPart(classes, images, checked, wrong, float(steps.threshold[place]), labelled, bound)


def _search(steps: _Steps, test: _Test, starts: Sequence[int]) -> tuple[int, float] | None:
    """(place, level) of the last step that passes: each start brings its share, and it goes on until a step fails."""
    luck, level, last = test.luck(test.allowed(steps.pool), steps.wrong), 0.0, None
    for place in range(len(luck)):
        if place in starts:
            level += test.level / len(starts)
        if steps.pool[place] and level and luck[place] <= level:
            last = place, level
        else:
            level = 0.0
    return last


def _starts(steps: _Steps, test: _Test) -> list[int]:
    """Where the search begins: by what a step could forgive, not by what it has to.

    With many audit labels a second time further on: a few images that people got wrong must not hide the rest.
    """
    allowed = test.allowed(steps.pool)
    more = math.floor((1 - test.precision) * test.drawn) // AGAIN
    if more >= 3 * FORGIVEN and test.luck(allowed[-1:], more)[0] <= test.level / 2:
        return [int((test.luck(allowed, wrong) <= test.level / 2).argmax()) for wrong in (FORGIVEN, more)]
    middle = allowed[(len(allowed) - 1) // 2 :][:1]
    could = [wrong for wrong in range(FORGIVEN + 1) if test.luck(middle, wrong)[0] <= test.level]
    passes = test.luck(allowed, max(could, default=0)) <= test.level
    return [int(passes.argmax())] if passes.any() else []


def _steps(classes: tuple[int, ...], audit: Audit, pool: PoolAnswers) -> _Steps:
    ours, theirs = np.isin(audit.answers.classes, classes), np.isin(pool.classes, classes)
    checked, free = audit.answers.sureness[ours], pool.sureness[theirs]
    everything = np.sort(np.concatenate([checked, free]))[::-1]
    places = np.ceil(len(everything) * np.arange(1, STEPS + 1) / STEPS).astype(np.int64) - 1
    thresholds = np.unique(everything[places])[::-1] if len(everything) else everything
    return _Steps(
        thresholds, _above(free, thresholds), _above(checked, thresholds),
        _above(checked[audit.wrong[ours]], thresholds),
    )  # fmt: skip


def _above(sureness: Floats, thresholds: Floats) -> Ints:
    """How many are at or above each threshold."""
    return len(sureness) - np.searchsorted(np.sort(sureness), thresholds, side="left").astype(np.int64)


def _further(steps: _Steps, test: _Test) -> int | None:
    """Audit labels on top of those there are with which the search would find something, if as many of them are wrong.

    None where half of all images would not do.
    """
    drawn = test.drawn
    while drawn < test.drawn_from // 2:
        drawn = min(test.drawn_from // 2, math.ceil(drawn * GROWTH) + 1)
        then = _Guess(test.drawn_from, drawn, test.precision, test.level)
        more = replace(steps, wrong=np.ceil(steps.wrong * (drawn / max(1, test.drawn))).astype(np.int64))
        if _search(more, then, _starts(more, then)):
            return drawn - test.drawn
    return None
