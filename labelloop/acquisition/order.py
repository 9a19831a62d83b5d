"""The pool in, the queue out: which image comes next, and whether its pre-label is shown."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from labelloop.acquisition.diversity import centroid_order
from labelloop.acquisition.select import SHORTLIST, Ints, Read
from labelloop.acquisition.strategies import DEFAULT, STRATEGIES
from labelloop.head import Floats
from labelloop.records import JUDGING, Bucket, Choice, digest
from labelloop.split import shown_blind

QUOTA = "quota"  # why an image that is drawn at random comes
CLUSTERS = 20  # of the cold start: a few per class in most projects
COLD = 20_000  # images that the cold start looks at


@dataclass(frozen=True, slots=True)
class Pool:
    """Images that may be shown: neither labelled nor skipped, nor a duplicate of one that is."""

    uris: Sequence[str]
    groups: Sequence[str]
    buckets: Sequence[Bucket]
    read: Read  # row numbers -> features; of the train bucket only a shortlist is read once there is a model
    labels: tuple[str, ...] = ()  # class order of ``probabilities``
    probabilities: Floats | None = None  # (n, classes); None: no model yet


@dataclass(frozen=True, slots=True)
class Quota:
    """The random share of the labels that people give, and how much of it is met."""

    share: float = 0.10
    labels: int = 0  # given so far by people, in all buckets
    random: int = 0  # of which in test and audit

    def due(self, place: int, taken: int) -> bool:
        """Whether the image at ``place`` (from 0), after ``taken`` random ones, must be a random one.

        At 10 % it is the tenth, not the first: the first page of a new project is a pre-labelled one.
        """
        return self.random + taken < math.floor(self.share * (self.labels + place + 1) + 1e-9)


@dataclass(frozen=True, slots=True)
class Plan:
    """How the queue is ordered."""

    window: int = 200  # places
    batch: int = 10  # labels until the next model, which plans anew
    strategy: str = DEFAULT
    seed: int = 0
    blind: float = 0.0  # share of the train images that is shown without pre-label


def plan_queue(pool: Pool, *, quota: Quota, plan: Plan) -> tuple[Choice, ...]:
    """The next ``plan.window`` images, lowest priority first.

    The random quota is drawn from test and audit and is blind; the model chooses from train only, of which a share is
    blind, too.
    """
    rows = _representatives(pool)
    train = np.array([i for i in rows if pool.buckets[i] is Bucket.TRAIN], dtype=np.int64)
    chosen = _chosen(pool, train, plan)
    drawn = _drawn(pool, [i for i in rows if pool.buckets[i] in JUDGING], plan.seed)
    hidden = {row for row, _ in chosen if shown_blind(pool.groups[row], plan.blind)} | {row for row, _ in drawn}
    if not quota.labels:
        chosen = _shown_first(chosen, hidden)
    places = _mixed(chosen, drawn, quota, plan.window)
    last = len(places) + 1
    return tuple(
        _choice(pool, row, why=why, priority=(i + 1) / last, blind=row in hidden) for i, (row, why) in enumerate(places)
    )


def _representatives(pool: Pool) -> list[int]:
    """One row per duplicate group: the first by uri."""
    first: dict[str, int] = {}
    for row in sorted(range(len(pool.uris)), key=pool.uris.__getitem__):
        first.setdefault(pool.groups[row], row)
    return list(first.values())


def _chosen(pool: Pool, train: Ints, plan: Plan) -> list[tuple[int, str]]:
    """Train rows in the order of their worth, with the reason."""
    if pool.probabilities is None:
        return [(int(i), "cold-start") for i in _cold(pool, train, plan.seed)]
    strategy = STRATEGIES[plan.strategy]
    picked = strategy.rank(pool.probabilities[train], lambda k: pool.read(train[k]), batch=plan.batch, seed=plan.seed)
    ranked = train[picked[: plan.window]]
    short = SHORTLIST * plan.batch
    return [(int(row), "uncertain" if k < short else "rest") for k, row in enumerate(ranked)]


def _cold(pool: Pool, train: Ints, seed: int) -> Ints:
    """Centroids first; of a huge pool only a sample is looked at."""
    if len(train) > COLD:
        train = np.sort(np.random.default_rng(seed).choice(train, COLD, replace=False))
    return train[centroid_order(pool.read(train), CLUSTERS, seed=seed)]


def _drawn(pool: Pool, rows: Sequence[int], seed: int) -> list[tuple[int, str]]:
    """Random, and the same for ever: by hash of the group, so that new images do not reshuffle old ones."""
    return [(row, QUOTA) for row in sorted(rows, key=lambda row: _lot(seed, pool.groups[row]))]


@cache
def _lot(seed: int, group: str) -> str:
    """Kept, for every order asks for the same: about 200 bytes for each image of test and audit."""
    return digest(f"quota:{seed}:{group}".encode())


def _shown_first(chosen: list[tuple[int, str]], hidden: Collection[int]) -> list[tuple[int, str]]:
    """The first page of a new project is a pre-labelled one."""
    first = next((i for i, (row, _) in enumerate(chosen) if row not in hidden), 0)
    return chosen[first : first + 1] + chosen[:first] + chosen[first + 1 :]


def _mixed(
    chosen: list[tuple[int, str]], drawn: list[tuple[int, str]], quota: Quota, window: int
) -> list[tuple[int, str]]:
    places: list[tuple[int, str]] = []
    one, other = iter(chosen), iter(drawn)
    taken = 0
    while len(places) < window:
        due = quota.due(len(places), taken)
        place = next(other if due else one, None)
        if place is None:
            place = next(one if due else other, None)
        if place is None:
            break
        taken += place[1] == QUOTA
        places.append(place)
    return places


def _choice(pool: Pool, row: int, *, why: str, priority: float, blind: bool) -> Choice:
    if pool.probabilities is None:
        return Choice(pool.uris[row], priority, None, None, blind, why)
    best = int(pool.probabilities[row].argmax())
    sure = float(pool.probabilities[row, best])
    return Choice(pool.uris[row], priority, pool.labels[best], sure, blind, why)
