"""How much of the queue is drawn at random, and from which bucket. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from labelloop.records import JUDGING, Bucket


@dataclass(frozen=True, slots=True)
class Quota:
    """The random share of the labels that people give, and how much of it is met."""

    share: float = 0.10
    labels: int = 0  # given so far by people, in all buckets
    random: int = 0  # of which in test and audit
    most: float = 0.10  # the share where the next verdict would lack evidence otherwise
    lacking: Mapping[Bucket, int] = field(default_factory=dict)  # labels that the next verdict or bound still wants
    ahead: int = 0  # labels until that verdict; 0: none is in sight

    @property
    def now(self) -> float:
        """The share of the labels until the next verdict: as much as it wants, within bounds."""
        wanted = sum(self.lacking.get(bucket, 0) for bucket in JUDGING)
        return max(self.share, min(self.most, wanted / self.ahead)) if self.ahead else self.share

    def due(self, place: int, taken: int) -> bool:
        """Whether the image at ``place`` (from 0), after ``taken`` random ones, must be a random one.

        At 10 % it is the tenth, not the first: the first page of a new project is a pre-labelled one.
        """
        over_all = math.floor(self.share * (self.labels + place + 1) + 1e-9)
        return self.random + taken < over_all or taken < math.floor(self.now * (place + 1) + 1e-9)
