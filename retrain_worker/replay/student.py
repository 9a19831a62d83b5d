"""One seed's pool in, a head for whatever is labelled of it out, as the loop would fit it, but many times a second.

What does not change from label to label is made once: principal components of the pool, and its neighbourhoods. The
recipe (strength, say of the pool) is searched anew whenever the labels have grown by half, as a refresh would, and kept
in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from labelloop.acquisition.space import leading
from labelloop.head import Floats
from labelloop.split import fold_of
from retrain_worker.logistic import (
    FOLDS,
    Rotated,
    best_temperature,
    hide,
    log_loss,
    mass_of,
    out_of_fold,
    softmax,
    solve,
)
from retrain_worker.replay.history import Draw, Ints
from retrain_worker.spreading import Neighbourhood, neighbourhood

COMPONENTS = 128
STRENGTHS = (1.0, 0.1, 0.01)
SAYS = (0.0, 1.0)
GROWN = 1.5
POOL_HELPS = 500
ABSENT = np.float32(-1e9)


@dataclass(slots=True)
class Student:
    """Learns what it is told of one pool, and is tested."""

    rows: Floats  # (n, k) of the pool
    test: Floats  # (t, k)
    truth: Ints  # (t,)
    folds: Ints  # (n,)
    near: Neighbourhood | None  # None: the pool takes no part
    classes: int
    _recipe: tuple[float, float] = (STRENGTHS[1], SAYS[0])  # strength, say of the pool
    _searched_at: int = 0
    _temperature: float = 1.0
    _solution: Floats = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))

    @classmethod
    def of(cls, draw: Draw, classes: int, *, with_pool: bool = True) -> Student:
        """Knows nothing yet."""
        mean = draw.pool.features.mean(axis=0)
        centred = draw.pool.features - mean
        basis = leading(centred, COMPONENTS)
        rows = centred @ basis
        scale = np.float32(np.sqrt(np.mean(np.einsum("ij,ij->i", rows, rows))) or 1.0)
        near = neighbourhood(draw.pool.features) if with_pool else None
        folds = np.array([fold_of(group, FOLDS) for group in draw.pool.groups], dtype=np.int64)
        test = (draw.test.features - mean) @ basis
        return cls(rows / scale, test / scale, draw.test.labels, folds, near, classes)

    def learn(self, labelled: Ints, labels: Ints) -> None:
        """``labelled`` (m,) row numbers of the pool, ``labels`` (m,) their classes."""
        present, targets = np.unique(labels, return_inverse=True)
        if len(labelled) >= GROWN * self._searched_at and len(present) > 1:
            self._search(labelled, targets, len(present))
            self._searched_at = len(labelled)
        strength, say = self._recipe
        rotated = self._table(labelled, say)
        solution = solve(rotated, mass_of(rotated, targets[None].astype(np.int64), len(present)), strength)[0]
        self._solution = np.zeros((self.classes, solution.shape[1]), dtype=np.float32)
        self._solution[:, -1] = ABSENT
        self._solution[present] = solution

    def probabilities(self, rows: Floats) -> Floats:
        """(m, k) rows to (m, classes), calibrated out of fold."""
        return softmax(self._logits(rows) / np.float32(self._temperature))

    def accuracy(self) -> float:
        """Share of the test images that are named rightly."""
        return float((self._logits(self.test).argmax(axis=1) == self.truth).mean())

    def _logits(self, rows: Floats) -> Floats:
        return np.asarray(rows @ self._solution[:, :-1].T + self._solution[:, -1], dtype=np.float32)

    def _table(self, labelled: Ints, say: float) -> Rotated:
        """The labelled rows in front; with the pool behind them where it has a say."""
        nothing, nowhere = np.zeros((0, 0), dtype=np.float32), np.zeros(0, dtype=np.float32)
        if self.near is None or not say:
            return Rotated(self.rows[labelled], nothing, nowhere, 1.0)
        rest = np.ones(len(self.rows), dtype=np.bool_)
        rest[labelled] = False
        order = np.concatenate([labelled, np.flatnonzero(rest)])
        near = Neighbourhood(self.near.graph[order][:, order])
        return Rotated(self.rows[order], nothing, nowhere, 1.0, near, say)

    def _search(self, labelled: Ints, targets: NDArray[np.int64], classes: int) -> None:
        folds = self.folds[labelled]
        members = hide(targets.astype(np.int64), folds)
        tried: list[tuple[float, tuple[float, float], float]] = []
        says: Sequence[float] = SAYS if self.near is not None and len(labelled) <= POOL_HELPS else SAYS[:1]
        for say in says:
            rotated = self._table(labelled, say)
            mass, start = mass_of(rotated, members, classes), None
            for strength in STRENGTHS:
                start = solve(rotated, mass, strength, start)
                logits = out_of_fold(rotated, start, members, folds)
                temperature = best_temperature(logits, targets)
                loss = log_loss(softmax(logits / np.float32(temperature)), targets)
                tried.append((loss, (strength, say), temperature))
        _, self._recipe, self._temperature = min(tried)
