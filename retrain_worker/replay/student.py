"""One seed's pool in, a head for whatever is labelled of it out: fitted by the code that a refresh runs.

One thing differs, for a replay fits thousands: strength, say of the pool and temperature are searched when the labels
have grown by half, and kept in between.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from labelloop.model.head import Head
from labelloop.records.arrays import Floats
from labelloop.rules.split import unit
from retrain_worker.heads.recipe import POOL_MOST, HeadRecipe, Lesson, Linear, fit_linear, refit
from retrain_worker.replay.history import Draw, Ints

GROWN = 1.5
ABSENT = np.float32(0)  # probability of a class without a label


@dataclass(slots=True)
class Student:
    """Learns what it is told of one pool, and is tested."""

    rows: Floats  # (n, features) of the pool
    groups: tuple[str, ...]  # of its rows
    test: Floats  # (t, features)
    truth: Ints  # (t,)
    classes: int
    lots: Ints  # rows of the pool in the order in which they help as unlabelled ones; none: they take no part
    _searched_at: int = 0
    _fitted: Linear | None = None
    _present: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @classmethod
    def of(cls, draw: Draw, classes: int, *, with_pool: bool = True) -> Student:
        """Knows nothing yet."""
        groups = tuple(draw.pool.groups)
        lots: Ints = np.argsort([unit(f"pool:{group}") for group in groups], kind="stable")
        some = lots if with_pool else lots[:0]
        return cls(draw.pool.features, groups, draw.test.features, draw.test.labels, classes, some)

    def learn(self, labelled: Ints, labels: Ints) -> None:
        """``labelled`` (m,) row numbers of the pool, ``labels`` (m,) their classes."""
        self._present = np.unique(labels)
        if len(self._present) < 2:
            self._fitted = None
            return
        lesson = self._lesson(labelled, labels)
        if self._fitted is None or len(labelled) >= GROWN * self._searched_at:
            self._fitted, self._searched_at = fit_linear(lesson, HeadRecipe()), len(labelled)
        else:
            self._fitted = refit(lesson, self._fitted)

    @property
    def head(self) -> Head | None:
        """None where fewer than two classes have a label."""
        return self._fitted.head if self._fitted else None

    def probabilities(self, rows: Floats) -> Floats:
        """(m, features) rows to (m, classes), calibrated out of fold."""
        out = np.full((len(rows), self.classes), ABSENT, dtype=np.float32)
        out[:, self._present] = self.head.probabilities(rows) if self.head else 1 / max(1, len(self._present))
        return out

    def unseen(self, rows: Floats) -> Floats:
        """(m,): how likely each is of a class without a label."""
        return self.head.unseen(rows) if self.head else np.zeros(len(rows), dtype=np.float32)

    def accuracy(self) -> float:
        """Share of the test images that are named rightly."""
        return float((self.probabilities(self.test).argmax(axis=1) == self.truth).mean())

    def _lesson(self, labelled: Ints, labels: Ints) -> Lesson:
        open_rows = self.lots[~np.isin(self.lots, labelled)][:POOL_MOST]
        names = tuple(str(k) for k in self._present)
        return Lesson(
            rows=self.rows[labelled], groups=[self.groups[i] for i in labelled], labels=[str(k) for k in labels],
            classes=names, pool=self.rows[open_rows] if len(open_rows) else None, missing=self.classes - len(names),
        )  # fmt: skip
