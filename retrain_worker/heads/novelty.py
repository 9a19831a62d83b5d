"""Labelled and unlabelled rows in, how to tell an image of a class that nobody has labelled yet out.

An image of a labelled class lies near that class's mean, others do not. How near images of another class lie is seen by
leaving each labelled class out in turn. How near those of labelled classes lie is what then remains of the unlabelled
images: their mean likeness mixes both. Labelled images would tell that badly: the order chose them to differ. With one
spread for both, the log odds are a line in the likeness (linear discriminant analysis).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from labelloop.model.head import Novelty, unit
from labelloop.records.arrays import Floats

CLASS_SAYS = 5.0  # labels that every class is thought to have had before the first one: shares are not far from even
SPREAD = 0.15  # of likenesses, as on four sets ...
SPREAD_SAYS = 4  # ... which counts as much as so many labels
APART = 0.5  # spreads by which labelled classes lie nearer, at least
TRIED_ON = 20  # unlabelled images, below which they say nothing

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Classes:
    """How many people can choose."""

    labelled: int  # two at least
    missing: int  # without a label, one at least

    def share(self, labels: int) -> float:
        """Of all images, how many are of a class without a label, where none of so many labels was.

        The posterior mean under a Dirichlet prior that gives every class `CLASS_SAYS` labels.
        """
        return CLASS_SAYS * self.missing / (labels + CLASS_SAYS * (self.labelled + self.missing))

    def odds(self, labels: int) -> float:
        """Their logarithm."""
        share = self.share(labels)
        return float(np.log(share / (1 - share)))


@dataclass(frozen=True, slots=True)
class NoveltyTable:
    """What a novelty is learned from."""

    rows: Floats  # (n, features)
    targets: Ints  # (n,) class numbers; -1: without a label
    pool: Floats  # (p, features) of images without a label


def fit_novelty(table: NoveltyTable, classes: Classes, folds: Ints) -> tuple[Novelty, Floats]:
    """The novelty, and what it says of each row by those that are not of its fold. O((n + p) x classes x features)."""
    centre = unit(np.concatenate([table.rows, table.pool])).mean(axis=0)
    rows = unit(unit(table.rows) - centre)
    labelled = table.targets >= 0
    clusters = _Clusters.of(rows[labelled], table.targets[labelled], classes.labelled)
    shape = Novelty(centre, unit(clusters.sums), 0.0, 0.0)
    share = classes.share(len(clusters.rows))
    far, near, spread = _places(clusters, shape.likeness(table.pool) if len(table.pool) >= TRIED_ON else None, share)
    slope = (near - far) / spread**2
    novelty = replace(shape, slope=slope, offset=classes.odds(len(clusters.rows)) + slope * (near + far) / 2)
    return novelty, _out_of_fold(novelty, rows, table.targets, folds, classes)


def _out_of_fold(novelty: Novelty, rows: Floats, targets: Ints, folds: Ints, classes: Classes) -> Floats:
    """A class all of whose labels are hidden with a fold is one more without a label there."""
    out = np.empty(len(rows), dtype=np.float32)
    for fold in np.unique(folds):
        mine, learned = folds == fold, (folds != fold) & (targets >= 0)
        clusters = _Clusters.of(rows[learned], targets[learned], classes.labelled)
        hidden = int((clusters.counts == 0).sum())
        there = Classes(classes.labelled - hidden, classes.missing + hidden)
        more = there.odds(len(clusters.rows)) - classes.odds(int((targets >= 0).sum())) if there.labelled else np.inf
        likeness = (rows[mine] @ unit(clusters.sums[clusters.counts > 0]).T).max(axis=1, initial=-1.0)
        out[mine] = replace(novelty, offset=novelty.offset + more).of(likeness)
    return out


@dataclass(frozen=True, slots=True)
class _Clusters:
    """Labelled rows, seen from the centre of all that is seen, and the sums of their classes."""

    rows: Floats  # (n, features), each of length 1
    targets: Ints  # (n,) class numbers
    sums: Floats  # (classes, features)
    counts: Floats  # (classes,)

    @classmethod
    def of(cls, rows: Floats, targets: Ints, classes: int) -> _Clusters:
        hot = (targets == np.arange(classes)[:, None]).astype(np.float32)
        return cls(rows, targets, hot @ rows, hot.sum(axis=1))

    def to_others(self) -> Floats:
        """(n,) likeness to the nearest class but the own one, as if that had no label."""
        likeness = self.rows @ unit(self.sums).T
        likeness[np.arange(len(likeness)), self.targets] = -1.0
        return np.asarray(likeness.max(axis=1), dtype=np.float32)

    def to_own(self) -> Floats:
        """(n,) likeness to the own class without the row itself; -1 where it is the only one."""
        likeness = np.einsum("ij,ij->i", self.rows, unit(self.sums[self.targets] - self.rows))
        return np.where(self.counts[self.targets] > 1, likeness, -1.0).astype(np.float32)


def _places(clusters: _Clusters, tried: Floats | None, share: float) -> tuple[float, float, float]:
    """Likeness of images of a class without a label, of images of labelled ones, and the spread of both."""
    others, each = clusters.to_others(), 1 / clusters.counts[clusters.targets]
    far, n = float(np.average(others, weights=each)), len(others)
    wide = np.sqrt((n * np.average((others - far) ** 2, weights=each) + SPREAD_SAYS * SPREAD**2) / (n + SPREAD_SAYS))
    least = far + APART * float(wide)
    if tried is None:
        return far, max(float(np.maximum(others, clusters.to_own()).mean()), least), float(wide)
    near = max((float(tried.mean()) - share * far) / (1 - share), least)
    left = (float(tried.var()) - share * (1 - share) * (near - far) ** 2 - share * wide**2) / (1 - share)
    return far, near, float(np.sqrt((wide**2 + max(left, (wide / 2) ** 2)) / 2))
