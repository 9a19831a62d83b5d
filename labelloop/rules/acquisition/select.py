"""Utility and a query in, the front of an order out: what to label first. What follows goes by utility."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from scipy.cluster.vq import kmeans2

from labelloop.records.arrays import Floats
from labelloop.rules.acquisition.coverage import covered_by, herd, radius_of
from labelloop.rules.acquisition.query import Ints, Query
from labelloop.rules.acquisition.space import Space, space_of

SHORTLIST = 5  # times the batch: the candidates among which a diverse batch is found
CANDIDATES = 2000  # images that are compared with a crowd
CROWD = 2000  # a sample that speaks for the whole pool
STEPS = 12  # of k-means
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
    member = _clusters(query.read(short), query.batch, seed=query.seed)
    turn, first = np.zeros(len(short), dtype=np.int64), np.zeros(len(short), dtype=np.int64)
    for cluster in np.unique(member):
        mine = np.flatnonzero(member == cluster)
        turn[mine], first[mine] = np.arange(len(mine)), mine[0]
    return np.asarray(short[np.lexsort((first, turn))], dtype=np.int64)


def _clusters(rows: Floats, count: int, *, seed: int) -> Ints:
    """(n,) which of at most ``count`` clusters each row is in, by k-means from k-means++ starts."""
    count = min(count, len(np.unique(rows, axis=0)))  # rows that are alike start no two clusters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty cluster is no fault
        _, member = kmeans2(rows, count, iter=STEPS, minit="++", seed=np.random.default_rng(seed))
    return np.asarray(member, dtype=np.int64)


def standing_for_the_unsure(utility: Floats, query: Query) -> Ints:
    """Images that stand for many others that the model is unsure of (Uncertainty Herding, arXiv 2412.20644)."""
    crowd = query.sample(CROWD)
    near = query.read(crowd)
    space = space_of(near, seed=query.seed)
    others, labelled = space.of(near), _in(space, query.labelled)
    radius = radius_of(others)
    candidates = query.best(utility, CANDIDATES)
    picked = herd(
        space.of(query.read(candidates)), others, covered_by(others, labelled, radius), utility[crowd],
        count=SHORTLIST * query.batch, radius=radius,
    )  # fmt: skip
    return candidates[picked]


def standing_for_most(utility: Floats, query: Query) -> Ints:
    """Images that together stand for most others (MaxHerding, arXiv 2412.20644). Needs no model."""
    sample = query.sample(CANDIDATES)
    features = query.read(sample)
    space = space_of(features, seed=query.seed)
    rows = space.of(features)
    radius = radius_of(rows)
    covered = covered_by(rows, _in(space, query.labelled), radius)
    return sample[herd(rows, rows, covered, np.ones(len(rows), np.float32), count=FRONT, radius=radius)]


def _in(space: Space, labelled: Floats) -> Floats:
    return space.of(labelled) if len(labelled) else np.zeros((0, space.basis.shape[1]), dtype=np.float32)
