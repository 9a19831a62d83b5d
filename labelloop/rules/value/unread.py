"""One person's looks in, the evidence that they accept without looking out. Pure.

The question is put so that neither the model's calibration nor how hard the images are can answer it: *given how often
this person departs from the model, do they depart where they cannot see its answer, and not where they can?* Somebody
who looks departs on both alike. Whether a chosen image is shown without its pre-label is left to a hash, so the two are
alike, too; what is drawn at random may be easier.

Ten looks are one block. Given the number of departures in a block, which of its looks they are follows Fisher's
noncentral hypergeometric distribution (conditional logistic regression: what the block has in common, how good the
model was just then, falls out). The ratio of that likelihood for somebody who accepts a share of the pre-labels unread
to the one for somebody who looks multiplies up to a test martingale: the safe logrank test (ter Schure, Pérez-Ortiz, Ly
and Grünwald 2020, arXiv 2011.06931). A mixture over shares, and over the block at which they stopped looking, is one as
well, and by Ville's inequality it exceeds 1 / LEVEL with a probability of LEVEL at most, however often one asks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from labelloop.rules.value.looks import Look, Showing

LEVEL = 0.01  # chance that somebody who looks is ever named
BLOCK = 10  # looks
SHARES = (0.5, 0.75, 0.9, 0.99)  # accepted unread, of the pre-labels
# What somebody may do who looks:
MISSED = 0.2  # of the wrong pre-labels they let pass, by mistake or because both classes would do
SLIP = 0.05  # of what they answer without a pre-label is a slip, which a pre-label would have prevented
ERRORS = 0.5  # errors among chosen images, in units of 1 - p: late, the model is better than it says (docs/value.md)
LEAST = 1e-4  # weight of a look at which the model is quite sure

Cell = tuple[Showing, float, bool]  # a look: kind, probability, departed


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a person's looks say. ``odds``: the test martingale; above 1 / LEVEL they are named."""

    odds: float = 1.0
    noticed: int | None = None  # looks after which it first was so high
    since: int = 0  # looks before those that speak for it

    @property
    def named(self) -> bool:
        """Whether it is high enough now: somebody who looks again is named no more."""
        return self.odds >= 1 / LEVEL


def evidence(looks: Sequence[Look]) -> Evidence:
    """Of one person's looks, oldest first; only whole blocks count."""
    cells = [(k.kind, k.probability, k.departed) for k in looks if k.probability is not None]
    run = _Run()
    for number in range(len(cells) // BLOCK):
        run.add(number, tuple(cells[number * BLOCK : (number + 1) * BLOCK]))
    return run.found([i for i, k in enumerate(looks) if k.probability is not None])


class _Run:
    """The mixture, block by block, in logarithms."""

    def __init__(self) -> None:
        self._sums = [-math.inf] * len(SHARES)  # over the blocks at which it may have begun
        self._best = [(-math.inf, 0)] * len(SHARES)  # the likeliest of them: (log weight, block)
        self._later = 1.0  # prior of beginning after what was looked at; nothing speaks for or against that
        self._crossed: int | None = None  # blocks after which it first was high enough

    def add(self, number: int, block: tuple[Cell, ...]) -> None:
        self._later -= math.exp(_begins(number))
        begins = _begins(number) - math.log(len(SHARES))
        for i, ratio in enumerate(_log_ratios(block)):
            self._sums[i] = _log_add(self._sums[i], begins) + ratio
            weight, since = max(self._best[i], (begins, number))
            self._best[i] = weight + ratio, since
        if self._crossed is None and self._log_odds() >= -math.log(LEVEL):
            self._crossed = number + 1

    def found(self, places: Sequence[int]) -> Evidence:
        """``places``: numbers of the looks that had a probability."""
        if self._sums[0] == -math.inf:
            return Evidence()
        noticed = places[self._crossed * BLOCK - 1] + 1 if self._crossed else None
        return Evidence(math.exp(min(self._log_odds(), 50.0)), noticed, places[max(self._best)[1] * BLOCK])

    def _log_odds(self) -> float:
        total = math.log(self._later)
        for part in self._sums:
            total = _log_add(total, part)
        return total


def _begins(block: int) -> float:
    """Log prior of having stopped to look at this block: half on the first, the rest thins out slowly; sums to 1."""
    place = block + 2
    return -math.log(place) - 2 * math.log(math.log(place)) - math.log(2.1098)


@lru_cache(maxsize=100_000)  # what came before does not change from one picture of the loop to the next
def _log_ratios(block: tuple[Cell, ...]) -> tuple[float, ...]:
    """Log likelihood ratio of a block for each of SHARES against somebody who looks."""
    departed = [cell[2] for cell in block]
    shown = [cell[0] is Showing.SHOWN for cell in block]
    if not any(departed) or all(departed) or all(shown) or not any(shown):
        return (0.0,) * len(SHARES)  # it cannot tell the two apart
    odds = [_odds(kind, probability) for kind, probability, _ in block]
    looks = _log_likelihood(odds, departed)
    return tuple(
        _log_likelihood([o * (1 - share) if s else o for o, s in zip(odds, shown, strict=True)], departed) - looks
        for share in SHARES
    )


def _odds(kind: Showing, probability: float) -> float:
    """Of a departure by somebody who looks, up to a factor that the whole block has in common."""
    wrong = 1 - probability
    if kind is Showing.SHOWN:
        return max((1 - MISSED) * ERRORS * wrong, LEAST)
    return (wrong if kind is Showing.DRAWN else ERRORS * wrong) + SLIP


def _log_likelihood(odds: Sequence[float], departed: Sequence[bool]) -> float:
    """Of these departures, given their number (Fisher's noncentral hypergeometric distribution)."""
    mine = sum(math.log(o) for o, d in zip(odds, departed, strict=True) if d)
    return mine - math.log(_ways(odds, sum(departed)))


def _ways(odds: Sequence[float], count: int) -> float:
    """The elementary symmetric polynomial of degree ``count``."""
    sums = [1.0] + [0.0] * count
    for o in odds:
        for degree in range(count, 0, -1):
            sums[degree] += o * sums[degree - 1]
    return sums[count]


def _log_add(one: float, other: float) -> float:
    high, low = max(one, other), min(one, other)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
