"""The table of strategies: one row each, a utility and a way to choose by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from labelloop.errors import SettingsError
from labelloop.records.arrays import Floats
from labelloop.rules.acquisition.query import Ints, Query
from labelloop.rules.acquisition.select import (
    Select,
    most_useful,
    shuffled,
    spread_over_clusters,
    standing_for_most,
    standing_for_the_unsure,
)
from labelloop.rules.acquisition.uncertainty import margin

DOUBT = 0.3  # what doubt among labelled classes counts while others are looked for (measured: 0, 0.3, alike)

Utility = Callable[[Query], Floats]


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to order the pool."""

    name: str
    utility: Utility
    select: Select
    words: str  # what comes first, for people
    cost: str  # n images, c classes, d features, b batch
    needs_model: bool = True

    def order(self, query: Query, count: int) -> Ints:
        """``count`` row numbers, the one to be labelled first in front; all where there are fewer."""
        if not query.size:
            return np.zeros(0, dtype=np.int64)
        utility = self.utility(query)
        front = self.select(utility, query)[:count]
        rest = query.best(utility, min(query.size, count + len(front)))
        return np.concatenate([front, rest[~np.isin(rest, front)]])[:count]


def _of(utility: Callable[[Floats], Floats]) -> Utility:
    def asked(query: Query) -> Floats:
        assert query.probabilities is not None, "this strategy needs a model"
        return utility(query.probabilities)

    return asked


def _unseen(query: Query) -> Floats:
    """How likely of a class without a label; where that hardly differs, the doubt among those with one."""
    doubt = _of(margin)(query)
    return doubt if query.unseen is None else query.unseen + DOUBT * doubt


def _none(query: Query) -> Floats:
    return np.zeros(query.size, dtype=np.float32)


STRATEGIES: Mapping[str, Strategy] = {
    row.name: row
    for row in (
        Strategy("cluster-margin", _of(margin), spread_over_clusters, "the least certain, spread over clusters",
                 "O(n c + b² d)"),
        Strategy("margin", _of(margin), most_useful, "the least certain between two classes", "O(n c)"),
        Strategy("uncertain-herding", _of(margin), standing_for_the_unsure,
                 "most representative of the images that the model is unsure of", "O(n c + 2000² d)"),
        Strategy("new-classes", _unseen, standing_for_the_unsure,
                 "most representative of the images that may be of a class without labels", "O(n c + 2000² d)"),
        Strategy("herding", _none, standing_for_most, "most representative of the other images", "O(2000² d)", False),
        Strategy("random", _none, shuffled, "at random", "O(n)", False),
    )
}  # fmt: skip


def strategy(name: str) -> Strategy:
    """One row; SettingsError names those that there are."""
    if name not in STRATEGIES:
        raise SettingsError(f"there is no strategy {name!r}; there are: auto, {', '.join(STRATEGIES)}")
    return STRATEGIES[name]
