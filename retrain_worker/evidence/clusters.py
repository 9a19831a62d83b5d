"""Right and wrong of images that stand in groups in, 95 % intervals out that count groups. Pure.

What a patient's twentieth image adds is what it says beyond the other nineteen: images of one group are right or wrong
together, and a formula for independent ones promises too much. The variance is that of the groups' sums (Liang and
Zeger 1986; Cochran 1977, chapter 11, for unequal sizes), which holds for any correlation inside a group. A share has
Wilson's interval for as many independent images as have that variance (Korn and Graubard 1998; Dean and Pagano 2015),
a difference that of `retrain_worker.intervals` over groups. Student's t stands for the normal distribution, since
groups may be few. Where every group has one image, all figures are those of the plain formulas, to the last digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student

from retrain_worker.intervals import Z95, wilson

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Strings = NDArray[np.str_]

PRIOR = 0.5  # squared deviations added: of one group that is right and one that is wrong, about a half


@dataclass(frozen=True, slots=True)
class Clusters:
    """The groups of n images, and how much each image counts."""

    codes: Ints  # (n,), from 0 without a gap
    weights: Doubles  # (n,)

    @property
    def count(self) -> int:
        """How many groups there are."""
        return int(self.codes.max()) + 1 if len(self.codes) else 0

    @property
    def units(self) -> int:
        """What counts: images, where each does; groups, where each speaks once."""
        return round(float(self.weights.sum()))

    @property
    def is_plain(self) -> bool:
        """Whether each image stands for itself."""
        return self.count == len(self.codes)

    def mean(self, values: Doubles | Bools) -> float:
        """Of (n,) values, as they count."""
        if self.is_plain:
            return float(values.mean())
        return float((self.weights * values).sum() / self.weights.sum())

    def sums(self, values: Doubles | Bools) -> Doubles:
        """(groups,) of (n,) values, so that a group of mean size counts as one."""
        scale = self.count / self.weights.sum()
        return np.asarray(np.bincount(self.codes, self.weights * values) * scale, dtype=np.float64)

    def quantile(self, z: float) -> float:
        """What stands for ``z`` of a normal distribution."""
        if self.is_plain:
            return z
        return float(student.isf(norm.sf(z), max(self.count - 1, 1)))


def clusters_of(groups: Sequence[str] | Strings, *, once: Bools | None = None) -> Clusters:
    """Of the images' groups (n,). ``once``: images whose group speaks once, with the mean of its images."""
    codes = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)[1].astype(np.int64)
    sizes = np.bincount(codes)[codes] if once is not None and len(codes) else np.ones(len(codes))
    return Clusters(codes, np.asarray(np.where(once, 1 / sizes, 1.0) if once is not None else sizes, dtype=np.float64))


def independent(right: Bools, clusters: Clusters) -> float:
    """As many independent images would say as much of the share that is right."""
    if clusters.is_plain:
        return float(len(right))
    share, groups = clusters.mean(right), clusters.count
    deviations = clusters.sums(right) - share * clusters.sums(np.ones(len(right)))
    return groups * (groups * share * (1 - share) + PRIOR) / (float((deviations**2).sum()) + PRIOR)


def share_interval(right: Bools, clusters: Clusters) -> tuple[float, float]:
    """Of a share of images that are right; (0, 1) without any."""
    if clusters.is_plain or not len(right):
        return wilson(int(right.sum()), len(right))
    share, n, z = clusters.mean(right), independent(right, clusters), clusters.quantile(Z95)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * float(np.sqrt(share * (1 - share) / n + z**2 / (4 * n * n)))
    return max(0.0, centre - half), min(1.0, centre + half)


def difference_interval(differences: Doubles, clusters: Clusters, z: float = Z95) -> tuple[float, float]:
    """Of a mean of differences (n,) in [-1, 1]; one group of +1 and one of -1 are added, as in `mean_interval`."""
    groups = clusters.count
    mean = float(clusters.sums(differences).sum()) / (groups + 2)
    deviations = clusters.sums(differences) - mean * clusters.sums(np.ones(len(differences)))
    squares = float((deviations**2).sum()) + (1 - mean) ** 2 + (1 + mean) ** 2
    half = clusters.quantile(z) * float(np.sqrt(squares)) / (groups + 2)
    return max(-1.0, mean - half), min(1.0, mean + half)


def mean_half(values: Doubles, clusters: Clusters) -> float:
    """Half of the interval of a mean of any values (n,), each of which counts alike."""
    deviations = np.bincount(clusters.codes, values - values.mean())
    return clusters.quantile(Z95) * float(np.sqrt((deviations**2).sum())) / len(values)
