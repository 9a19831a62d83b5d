"""Utility and a query in, the front of an order out: what to label first. What follows goes by utility."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from labelloop.records.arrays import Floats
from labelloop.rules.acquisition.coverage import covered_by, herd, k_center, radius_of, typical_order
from labelloop.rules.acquisition.diversity import centroid_order, k_means
from labelloop.rules.acquisition.gradients import badge
from labelloop.rules.acquisition.query import Ints, Query, top
from labelloop.rules.acquisition.space import Space, space_of

SHORTLIST = 5  # times the batch: the candidates among which a diverse batch is found
CANDIDATES = 2000  # images that are compared with a crowd
CROWD = 2000  # a sample that speaks for the whole pool
SEEN = 20_000  # images that are looked at where no utility says which
CLUSTERS = 20  # of the start by centroids: a few per class in most projects
FRONT = 200  # places that are chosen before there is a model: a window

Select = Callable[[Floats, Query], Ints]


def shuffled(utility: Floats, query: Query) -> Ints:
    """Everything at random."""
    return np.random.default_rng(query.seed).permutation(query.size).astype(np.int64)


def most_useful(utility: Floats, query: Query) -> Ints:
    """By utility alone."""
    return query.best(utility, SHORTLIST * query.batch)


def spread_over_clusters(utility: Floats, query: Query) -> Ints:
    """Among the most useful, one of each cluster in turn: the most useful of its own first.

    The first is always the most useful of all. O(batch² x features) (Cluster-Margin, arXiv 2107.14263).
    """
    short = query.best(utility, SHORTLIST * query.batch)
    if query.batch < 2 or len(short) < 3:
        return short
    member = k_means(query.read(short), query.batch, seed=query.seed).member
    turn, first = np.zeros(len(short), dtype=np.int64), np.zeros(len(short), dtype=np.int64)
    for cluster in np.unique(member):
        mine = np.flatnonzero(member == cluster)
        turn[mine], first[mine] = np.arange(len(mine)), mine[0]
    return np.asarray(short[np.lexsort((first, turn))], dtype=np.int64)


def by_gradients(utility: Floats, query: Query) -> Ints:
    """BADGE; in a pool of more than 20,000 among the most useful of them."""
    assert query.probabilities is not None
    rows = query.rows if query.size <= SEEN else np.sort(query.best(utility, SEEN))
    picked = badge(query.probabilities[rows], query.read(rows), count=SHORTLIST * query.batch, seed=query.seed)
    return rows[picked]


def standing_for_the_unsure(utility: Floats, query: Query) -> Ints:
    """Images that stand for many others of which the model is unsure (Uncertainty Herding, arXiv 2412.20644)."""
    crowd = query.sample(CROWD)
    near = query.read(crowd)
    space = space_of(near, seed=query.seed)
    others, known = space.of(near), _in(space, query.labelled)
    radius = radius_of(others)
    candidates = query.best(utility, CANDIDATES)
    picked = herd(
        space.of(query.read(candidates)), others, covered_by(others, known, radius), utility[crowd],
        count=SHORTLIST * query.batch, radius=radius,
    )  # fmt: skip
    return candidates[picked]


def in_dense_places(utility: Floats, query: Query) -> Ints:
    """The most useful, weighted by how many others are like them (information density, Settles and Craven 2008)."""
    crowd = query.read(query.sample(CROWD))
    space = space_of(crowd, seed=query.seed)
    candidates = query.best(utility, CANDIDATES)
    likeness = (space.of(query.read(candidates)) @ space.of(crowd).T + 1).mean(axis=1)
    return candidates[top(utility[candidates] * likeness, SHORTLIST * query.batch)]


def standing_for_most(utility: Floats, query: Query) -> Ints:
    """Images that together stand for most others (MaxHerding, arXiv 2412.20644). Needs no model."""
    seen = query.sample(CANDIDATES)
    features = query.read(seen)
    space = space_of(features, seed=query.seed)
    rows = space.of(features)
    radius = radius_of(rows)
    covered = covered_by(rows, _in(space, query.labelled), radius)
    return seen[herd(rows, rows, covered, np.ones(len(rows), np.float32), count=FRONT, radius=radius)]


def nearest_to_centroids(utility: Floats, query: Query) -> Ints:
    """The image nearest to each of twenty centroids, then the second nearest, and so on. Needs no model."""
    seen = query.sample(SEEN)
    return seen[centroid_order(query.read(seen), CLUSTERS, seed=query.seed)]


def most_typical(utility: Floats, query: Query) -> Ints:
    """The most typical image of each cluster without a label, the largest first (TypiClust). Needs no model."""
    seen = query.sample(CANDIDATES)
    features = query.read(seen)
    space = space_of(features, seed=query.seed)
    rows, known = space.of(features), _in(space, query.labelled)
    return seen[typical_order(rows, known, count=SHORTLIST * query.batch, batch=query.batch, seed=query.seed)]


def farthest(utility: Floats, query: Query) -> Ints:
    """Each the farthest from all that is labelled or chosen (Core-Set). Needs no model."""
    seen = query.sample(SEEN)
    features = query.read(seen)
    space = space_of(features, seed=query.seed)
    return seen[k_center(space.of(features), _in(space, query.labelled), count=SHORTLIST * query.batch)]


def _in(space: Space, labelled: Floats) -> Floats:
    return space.of(labelled) if len(labelled) else np.zeros((0, space.basis.shape[1]), dtype=np.float32)
