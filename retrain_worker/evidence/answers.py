"""Answers beside the truth: where two models differ, class by class, and whether class names look exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import norm

from labelloop.model.head import speaks
from labelloop.records.arrays import Floats
from labelloop.records.evidence import ClassRecall, Comparison, LossComparison, PreLabels, Renaming
from labelloop.rules.paired_intervals import paired_interval
from retrain_worker.evidence.clusters import (
    Bools,
    Clusters,
    clusters_of,
    difference_interval,
    independent,
    mean_half,
    share_interval,
)
from retrain_worker.heads.logistic import best_temperature, softmax
from retrain_worker.intervals import Z95

Strings = NDArray[np.str_]
Ints = NDArray[np.int64]

LEAST = 1e-3  # probability below which a class surprises no more: a single image may not outweigh the rest


@dataclass(frozen=True, slots=True)
class PairedAnswers:
    """Of challenger and champion (None: there is none) beside the truth; (n,) each."""

    truth: Strings
    ours: Strings
    theirs: Strings | None
    among: Strings | None = None  # ours, asked only for classes that the champion knows, too; None: the same
    groups: Strings | None = None  # of related images; None: no two are related
    once: Bools | None = None  # images whose group speaks once: groups were drawn, not images; None: none of them

    @staticmethod
    def none() -> PairedAnswers:
        """To no image."""
        empty = np.array([], dtype=np.str_)
        return PairedAnswers(empty, empty, empty)

    def compared(self, on: str) -> Comparison | None:
        """None where there is no champion."""
        if self.theirs is None:
            return None
        return paired(self.truth, champion=self.theirs, challenger=self.ours, on=on, clusters=self.clusters())

    def clusters(self, rows: Bools | None = None) -> Clusters:
        """The groups of all images, or of those of some rows."""
        use = np.ones(len(self.truth), dtype=np.bool_) if rows is None else rows
        groups, once = self._grouped
        return clusters_of(groups[use], once=once[use])

    @property
    def _grouped(self) -> tuple[Strings, Bools]:
        n = len(self.truth)
        groups = np.arange(n).astype(np.str_) if self.groups is None else self.groups
        return groups, np.zeros(n, dtype=np.bool_) if self.once is None else self.once

    def and_of(self, other: PairedAnswers) -> PairedAnswers:
        """These and the others. No group is in both: groups do not cross splits."""
        theirs = None
        if self.theirs is not None and other.theirs is not None:
            theirs = np.concatenate([self.theirs, other.theirs])
        (mine, once), (others, others_once) = self._grouped, other._grouped
        return PairedAnswers(
            np.concatenate([self.truth, other.truth]), np.concatenate([self.ours, other.ours]), theirs,
            np.concatenate([self.comparable, other.comparable]),
            np.concatenate([np.char.add("1:", mine), np.char.add("2:", others)]), np.concatenate([once, others_once]),
        )  # fmt: skip

    @property
    def comparable(self) -> Strings:
        """Ours, without what only we can say: who knows two classes of six finds all images of them, and many more."""
        return self.ours if self.among is None else self.among


def paired(
    truth: Strings, *, champion: Strings, challenger: Strings, on: str, clusters: Clusters | None = None
) -> Comparison:
    """Two columns of answers against the truth; n 0 leaves the whole interval open. ``clusters``: None: all apart."""
    n = len(truth)
    if n == 0:
        return Comparison(on, 0, 0.0, 0.0, 0.0, -1.0, 1.0, 0)
    before, after = champion == truth, challenger == truth
    changed = int((champion != challenger).sum())
    if clusters is None or clusters.is_plain:
        gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
        low, high = paired_interval(gained, lost, n)
        return Comparison(on, n, float(before.mean()), float(after.mean()), (gained - lost) / n, low, high, changed)
    difference = after.astype(np.float64) - before
    low, high = difference_interval(difference, clusters)
    return Comparison(
        on, clusters.units, clusters.mean(before), clusters.mean(after), clusters.mean(difference), low, high, changed
    )


def recalls(answers: PairedAnswers) -> tuple[ClassRecall, ...]:
    """One row per class of the truth; the bounds of all drops hold together (Bonferroni)."""
    names = sorted(set(answers.truth.tolist()))
    z = float(norm.ppf(1 - 0.025 / max(len(names), 1)))
    return tuple(_recall(name, answers, z) for name in names)


def _recall(name: str, answers: PairedAnswers, z: float) -> ClassRecall:
    rows = answers.truth == name
    ours, clusters = answers.ours[rows] == name, answers.clusters(rows)
    n, (_, high) = clusters.units, share_interval(ours, clusters)
    if answers.theirs is None:
        return ClassRecall(name, n, clusters.mean(ours), high)
    theirs, among = answers.theirs[rows] == name, answers.comparable[rows] == name
    if clusters.is_plain:
        _, drop_high = paired_interval(int((among & ~theirs).sum()), int((theirs & ~among).sum()), n, z)
    else:
        _, drop_high = difference_interval(among.astype(np.float64) - theirs, clusters, z)
    return ClassRecall(name, n, clusters.mean(ours), high, clusters.mean(theirs), drop_high, clusters.mean(among))


def pre_labels(probabilities: Floats, unseen: Floats | None, truth: Ints, groups: Strings | None = None) -> PreLabels:
    """What people would have been shown, of answers out of fold (n, classes); ``truth`` (n,) class numbers.

    The only label of its class is as good as an image of a class without one. Where the head that serves knows of no
    such class, it says nothing of it.
    """
    learned = probabilities[np.arange(len(truth)), truth] > 0
    shown = learned if unseen is None else speaks(probabilities.max(axis=1), unseen)
    correct = shown & (probabilities.argmax(axis=1) == truth)
    of_each = np.bincount(truth[shown], minlength=1)
    only = int((~learned & ~shown).sum())
    alike = np.arange(len(truth)).astype(np.str_) if groups is None else groups
    clusters = clusters_of(alike[shown])
    worth = None if clusters.is_plain else min(independent(correct[shown], clusters), float(shown.sum()))
    return PreLabels(
        right=int(correct.sum()), wrong=int((shown & ~correct).sum()), hidden=int((~shown).sum()) - only, only=only,
        majority=float(of_each.max() / max(1, shown.sum())), independent=worth,
    )  # fmt: skip


def best_renaming(truth: Ints, answers: Ints, classes: Sequence[str]) -> Renaming:
    """The exchange of class names under which ``answers`` (n,) would agree best with ``truth`` (n,).

    Source: the assignment problem on the confusion matrix (Kuhn 1955), as scipy solves it.
    """
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (answers, truth), 1)
    rows, columns = linear_sum_assignment(confusion, maximize=True)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    moved = tuple(f"{classes[a]} → {classes[b]}" for a, b in pairs if a != b)
    return Renaming(float(confusion[rows, columns].sum() / max(len(truth), 1)), moved)


def surprise(
    truth: Ints, *, champion: Floats, challenger: Floats, on: str, clusters: Clusters | None = None
) -> LossComparison | None:
    """Log losses of two arms' probabilities (n, classes) on class numbers (n,); None without any.

    Each is calibrated on these images first: hard new labels make a head less sure of easy earlier ones, and no worse.
    """
    n = len(truth)
    if n == 0:
        return None
    before, after = (
        -np.log(np.maximum(_calibrated(p, truth)[np.arange(n), truth], LEAST)) for p in (champion, challenger)
    )
    differences = (after - before).astype(np.float64)
    mean, half = float(differences.mean()), Z95 * float(differences.std()) / float(np.sqrt(n))
    if clusters is not None and not clusters.is_plain:
        half = mean_half(differences, clusters)
    return LossComparison(on, n, float(before.mean()), float(after.mean()), mean, mean - half, mean + half)


def _calibrated(probabilities: Floats, truth: Ints) -> Floats:
    """(n, classes), each row summing to one, with the temperature that suits the truth best."""
    logits = np.log(np.maximum(probabilities, np.float32(1e-6)))
    return softmax(logits / np.float32(best_temperature(logits, truth)))
