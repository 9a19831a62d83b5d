"""How much of the queue is drawn at random, and from which split. Pure.

Everything goes by what is labelled so far, never by a place in one order: an order lasts ten labels or so, and what is
counted within it would begin at nothing each time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from labelloop.records.images import Split

FIRST = (Split.TEST, Split.AUDIT)  # the gate is asked sooner than a bound: what lacks labels first is served first
TURN = 5  # one random image in so many is of the other split: neither is left without labels
OTHER = 1 / TURN


@dataclass(frozen=True, slots=True)
class Quota:
    """The random share of the labels that people give, and how much of it is met."""

    share: float = 0.10  # at least
    labels: int = 0  # given so far by people, in all splits
    random: int = 0  # of which in test and audit
    most: float = 0.10  # at most, while evidence is lacking
    lacking: Mapping[Split, int] = field(default_factory=dict)  # labels that the next verdict or bound still wants
    ahead: int | None = None  # train labels until that verdict; None: none is in sight

    @property
    def now(self) -> float:
        """The share of the labels until the next verdict: as much as it wants, within bounds."""
        random = self._wanted()
        if self.ahead is None or not random:
            return self.share
        return max(self.share, min(self.most, random / (random + self.ahead)))

    def due(self, place: int, taken: int) -> bool:
        """Whether the image at ``place`` (from 0), after ``taken`` random ones, must be a random one.

        At 10 % it is the tenth, not the first: the first page of a new project is a pre-labelled one. Who is behind
        catches up at every second place; who has more than ``most`` goes on at the plain share.
        """
        after, random = self.labels + place + 1, self.random + taken
        most = _whole(max(self.share, self.most) * after)
        if after % 2 == 0 and random < _whole(self.share * after):
            return True
        if random > most:
            return _falls(self.share, after)
        return random < most and _falls(self.now, after)

    def split(self, drawn: Mapping[Split, int]) -> Split | None:
        """The split of the next random image, after ``drawn`` of each; None: of either."""
        first = next((b for b in FIRST if self.lacking.get(b, 0) > drawn.get(b, 0)), None)
        if first is None or (self.random + sum(drawn.values()) + 1) % TURN:
            return first
        return next(b for b in FIRST if b is not first)

    def _wanted(self) -> float:
        """Random images until no split lacks any, drawn as `split` says."""
        images = 0.0
        for split in FIRST:
            images += max(0.0, self.lacking.get(split, 0) - images * OTHER) / (1 - OTHER)
        return images


def _falls(share: float, place: int) -> bool:
    """Whether the label at ``place`` (from 1) is one of so large a share, spread evenly."""
    return _whole(share * place) > _whole(share * (place - 1))


def _whole(share: float) -> int:
    return math.floor(share + 1e-9)
