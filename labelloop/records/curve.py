"""Accuracies of versions on the same random labels, as they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

RIGHT, WRONG, UNKNOWN = "0", "1", "-"
Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Points:
    """``labels`` (versions,): what each learned from, ascending, the champion last.

    ``wrong`` (images, versions): 1 where its answer to a random label's image was not the person's, else 0.
    """

    labels: Doubles
    wrong: Doubles


@dataclass(frozen=True, slots=True)
class Point:
    """One version. ``wrong``: a character per random label; unknown: its backbone has no features of that image."""

    version: str
    kind: str  # refresh | retrain
    labels: int  # train labels it learned from
    backbone: str
    head: str  # linear | ensemble
    at: str
    wrong: str

    @property
    def judged(self) -> int:
        """On how many random labels."""
        return len(self.wrong) - self.wrong.count(UNKNOWN)

    @property
    def accuracy(self) -> float | None:
        """On these; None where there are none."""
        return self.wrong.count(RIGHT) / self.judged if self.judged else None


@dataclass(frozen=True, slots=True)
class KeptCurve:
    """The versions that went live and were not rolled back, fewest labels first, on all random labels of one moment."""

    at: str
    snapshot: str  # whose labels judge
    live: str
    test: int  # random labels of the test split ...
    audit: int  # ... and of the audit split
    points: tuple[Point, ...]
    waiting: Mapping[str, int] = field(default_factory=dict)  # classes below the minimum -> train labels they have
    left: int = 0  # images that could still be labelled and learned from
    doubled: int = 0  # random images that two people or more have labelled ...
    differ: int = 0  # ... of which they gave different classes

    @property
    def images(self) -> int:
        """Random labels."""
        return self.test + self.audit

    @property
    def current(self) -> tuple[Point, ...]:
        """Those made as the champion: another backbone or kind of head is another curve."""
        live = next((p for p in self.points if p.version == self.live), None)
        recipe = (live.backbone, live.head) if live else None
        return tuple(p for p in self.points if (p.backbone, p.head) == recipe and UNKNOWN not in p.wrong)

    def arrays(self) -> Points:
        """The current curve's."""
        wrong = [[mark == WRONG for mark in p.wrong] for p in self.current]
        return Points(np.array([p.labels for p in self.current], dtype=np.float64), np.array(wrong, dtype=np.float64).T)
