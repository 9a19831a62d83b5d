"""A draw and a strategy in, its learning curve out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from labelloop.records.arrays import Floats
from labelloop.rules.acquisition import Query, Situation, choose, strategy
from retrain_worker.replay.history import Draw, Ints
from retrain_worker.replay.student import Student

SMALL = 10  # labels between two models at first
GROWTH = 0.1  # and then this share of those given


@dataclass(frozen=True, slots=True)
class ChoiceRequest:
    """What a chooser may look at."""

    features: Floats  # (n, d) of the whole pool
    rows: Floats  # (n, k), as the head sees them
    labelled: Ints  # (m,) in the order they were labelled
    labels: Ints  # (m,)
    open: Ints  # rows that may be chosen
    probabilities: Floats | None  # (n, classes) of the whole pool; None: no model yet
    unseen: Floats | None  # (n,) how likely of a class without a label; None: every class has one
    answer: Callable[[Floats], Floats]  # rows (m, k) to probabilities (m, classes)
    classes: int
    batch: int
    seed: int


class Chooser(Protocol):
    """Chooses ``asked.batch`` of ``asked.open``."""

    def __call__(self, choice: ChoiceRequest, /) -> Ints: ...


@dataclass(frozen=True, slots=True)
class ArmCurve:
    """Accuracy on the test images after so many labels."""

    labels: tuple[int, ...]
    accuracy: tuple[float, ...]

    def until(self, most: int) -> ArmCurve:
        """As if there had been no more labels than that."""
        count = sum(n <= most for n in self.labels)
        return ArmCurve(self.labels[:count], self.accuracy[:count])


def checkpoints(most: int) -> tuple[int, ...]:
    """Label counts at which there is a new model: every ten up to a hundred, then a tenth more each."""
    counts = [SMALL]
    while (step := counts[-1] + max(SMALL, int(GROWTH * counts[-1]))) <= most:
        counts.append(step)
    return tuple(counts)


def run_arm(drawn: Draw, student: Student, chooser: Chooser, *, most: int, seed: int) -> ArmCurve:
    """Label, learn, be tested, again and again. Deterministic for a seed."""
    size = len(drawn.pool.labels)
    labelled: Ints = np.zeros(0, dtype=np.int64)
    probabilities: Floats | None = None
    unseen: Floats | None = None
    counts, accuracies = checkpoints(min(most, size - SMALL)), []
    for count in counts:
        rest = np.ones(size, dtype=np.bool_)
        rest[labelled] = False
        choice = ChoiceRequest(
            drawn.pool.features, student.rows, labelled, drawn.pool.labels[labelled], np.flatnonzero(rest),
            probabilities, unseen, student.probabilities, student.classes, count - len(labelled), 1000 * seed + count,
        )  # fmt: skip
        labelled = np.concatenate([labelled, chooser(choice)])
        student.learn(labelled, drawn.pool.labels[labelled])
        accuracies.append(student.accuracy())
        probabilities = student.probabilities(student.rows) if student.head else None
        unseen = student.unseen(student.rows) if student.head and student.head.novelty else None
    return ArmCurve(counts, tuple(accuracies))


def by_policy(policy: str) -> Chooser:
    """The queue's own way to choose: `auto` or a strategy."""

    def chooser(choice: ChoiceRequest) -> Ints:
        missing = (
            tuple(str(k) for k in range(choice.classes) if k not in choice.labels) if choice.unseen is not None else ()
        )
        situation = Situation(choice.probabilities is not None, missing=missing)
        query = Query(
            len(choice.open), lambda rows: choice.features[choice.open[rows]],
            None if choice.probabilities is None else choice.probabilities[choice.open],
            choice.features[choice.labelled], choice.labels, choice.batch, choice.seed,
            None if choice.unseen is None else choice.unseen[choice.open],
        )  # fmt: skip
        return choice.open[strategy(choose(policy, situation).strategy).order(query, choice.batch)]

    return chooser


def mean_curve(curves: Sequence[ArmCurve]) -> ArmCurve:
    """Over seeds; all have the same checkpoints, or the shortest one's."""
    shortest = min(curves, key=lambda c: len(c.labels))
    cut = np.array([c.accuracy[: len(shortest.labels)] for c in curves])
    return ArmCurve(shortest.labels, tuple(float(v) for v in cut.mean(axis=0)))
