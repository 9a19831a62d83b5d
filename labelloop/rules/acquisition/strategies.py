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
    by_gradients,
    farthest,
    in_dense_places,
    most_typical,
    most_useful,
    nearest_to_centroids,
    shuffled,
    spread_over_clusters,
    standing_for_most,
    standing_for_the_unsure,
)
from labelloop.rules.acquisition.uncertainty import class_need, entropy, least_confidence, margin

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


def _need(query: Query) -> Floats:
    assert query.probabilities is not None, "this strategy needs a model"
    return class_need(query.probabilities, query.labels, query.missed)


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
        Strategy("entropy", _of(entropy), most_useful, "the least certain among all classes", "O(n c)"),
        Strategy("least-confidence", _of(least_confidence), most_useful, "the least sure", "O(n c)"),
        Strategy("badge", _of(margin), by_gradients, "what would change the model most, in different directions",
                 "O(n c + b min(n, 20000) (c + d))"),
        Strategy("uncertain-herding", _of(margin), standing_for_the_unsure,
                 "most representative of the images that the model is unsure of", "O(n c + 2000² d)"),
        Strategy("new-classes", _unseen, standing_for_the_unsure,
                 "most representative of the images that may be of a class without labels", "O(n c + 2000² d)"),
        Strategy("density-margin", _of(margin), in_dense_places, "least certain, in dense regions",
                 "O(n c + 2000² d)"),
        Strategy("class-need", _need, most_useful, "likely of a rare or a weak class", "O(n c)"),
        Strategy("herding", _none, standing_for_most, "most representative of the other images", "O(2000² d)", False),
        Strategy("centroids", _none, nearest_to_centroids, "the most central image of each cluster", "O(20000 d)",
                 False),
        Strategy("typical", _none, most_typical, "the most typical image of each cluster without a label",
                 "O(2000² d)", False),
        Strategy("k-center", _none, farthest, "farthest from everything labelled", "O(20000 b d)", False),
        Strategy("random", _none, shuffled, "at random", "O(n)", False),
    )
}  # fmt: skip


def strategy(name: str) -> Strategy:
    """One row; SettingsError names those that there are."""
    if name not in STRATEGIES:
        raise SettingsError(f"there is no strategy {name!r}; there are: auto, {', '.join(STRATEGIES)}")
    return STRATEGIES[name]
