"""Paired differences in, 95 % intervals of their mean out. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labelloop.rules.intervals import Z95


def paired_interval(gained: int, lost: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Interval (95 %, or what ``z`` says) of a difference of paired proportions, in [-1, 1], valid at small n.

    Bonett and Price 2012 (Wald with one added to each discordant cell), as advised by Fagerland, Lydersen
    and Laake 2014: simple, and it neither collapses to a point nor opens wide where the arms agree.
    """
    plus, minus = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = z * float(np.sqrt((plus + minus - (plus - minus) ** 2) / (n + 2)))
    return max(-1.0, plus - minus - half), min(1.0, plus - minus + half)


def mean_interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """The same of a mean of differences (n,), each in [-1, 1]; with all of them -1, 0 or 1 it is `paired_interval`."""
    n = len(differences)
    mean = float(differences.sum()) / (n + 2)
    spread = (float((differences**2).sum()) + 2) / (n + 2) - mean**2  # one of +1 and one of -1 added
    half = Z95 * float(np.sqrt(spread / (n + 2)))
    return max(-1.0, mean - half), min(1.0, mean + half)
