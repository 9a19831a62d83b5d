"""The pool in, the queue out: which image comes next, and whether its pre-label is shown."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from labelloop.model.head import speaks
from labelloop.records.arrays import Floats
from labelloop.records.images import JUDGING, Split
from labelloop.records.json import digest
from labelloop.records.tasks import QueuePlace
from labelloop.rules.acquisition.query import Ints, Query, Read
from labelloop.rules.acquisition.quota import Quota
from labelloop.rules.acquisition.select import SHORTLIST
from labelloop.rules.acquisition.strategies import strategy
from labelloop.rules.split import shown_blind

QUOTA = "quota"  # why an image that is drawn at random comes


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Train images that are labelled: ``features`` (m, d); ``labels`` (m,) columns of the model, -1: it has none."""

    features: Floats = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    labels: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class UnlabelledPool:
    """Images that may be shown: neither labelled nor skipped, nor a duplicate of one that is."""

    uris: Sequence[str]
    groups: Sequence[str]
    splits: Sequence[Split]
    read: Read  # row numbers -> features; of a large pool only a part is ever read
    labels: tuple[str, ...] = ()  # class order of ``probabilities``
    probabilities: Floats | None = None  # (n, classes); None: no model yet
    labelled: LabelledRows = field(default_factory=LabelledRows)
    unseen: Floats | None = None  # (n,) how likely each is of a class that the model does not know; None: not at all


@dataclass(frozen=True, slots=True)
class QueuePlan:
    """How the queue is ordered."""

    strategy: str
    window: int = 200  # places
    batch: int = 10  # labels until the next model, which plans again
    seed: int = 0
    blind: float = 0.0  # share of the train images that is shown without pre-label


def plan_queue(pool: UnlabelledPool, *, quota: Quota, plan: QueuePlan) -> tuple[QueuePlace, ...]:
    """The next ``plan.window`` images, lowest priority first.

    The random quota is drawn from test and audit and is blind; the strategy chooses from train only, of which a share
    is blind, too.
    """
    rows = _representatives(pool)
    train = np.array([i for i in rows if pool.splits[i] is Split.TRAIN], dtype=np.int64)
    chosen = _chosen(pool, train, plan)
    random = [i for i in rows if pool.splits[i] in JUDGING]
    quota = _within_reach(quota, Counter(pool.splits[i] for i in random))
    drawn = _drawn(pool, random, quota, plan.seed)
    hidden = {row for row, _ in chosen if shown_blind(pool.groups[row], plan.blind)} | {row for row, _ in drawn}
    if not quota.labels:
        chosen = _shown_first(chosen, hidden | {row for row, _ in chosen if not _speaks(pool, row)})
    places = _mixed(chosen, drawn, quota, plan.window)
    last = len(places) + 1
    return tuple(
        _choice(pool, row, why=why, priority=(i + 1) / last, blind=row in hidden) for i, (row, why) in enumerate(places)
    )


def _representatives(pool: UnlabelledPool) -> list[int]:
    """One row per unit: the first by uri."""
    first: dict[str, int] = {}
    for row in sorted(range(len(pool.uris)), key=pool.uris.__getitem__):
        first.setdefault(pool.groups[row], row)
    return list(first.values())


def _chosen(pool: UnlabelledPool, train: Ints, plan: QueuePlan) -> list[tuple[int, str]]:
    """Train rows in the order of their worth, with the reason."""
    query = Query(
        len(train), lambda k: pool.read(train[k]),
        None if pool.probabilities is None else pool.probabilities[train],
        pool.labelled.features, pool.labelled.labels, plan.batch, plan.seed,
        unseen=None if pool.unseen is None else pool.unseen[train],
    )  # fmt: skip
    ranked = train[strategy(plan.strategy).order(query, plan.window)]
    if pool.probabilities is None:
        return [(int(row), "cold-start") for row in ranked]
    short = SHORTLIST * plan.batch
    return [(int(row), plan.strategy if k < short else "rest") for k, row in enumerate(ranked)]


def _within_reach(quota: Quota, images: Mapping[Split, int]) -> Quota:
    """What a split has no images for is not waited for."""
    return replace(quota, lacking={split: min(n, images.get(split, 0)) for split, n in quota.lacking.items()})


def _drawn(pool: UnlabelledPool, rows: Sequence[int], quota: Quota, seed: int) -> list[tuple[int, str]]:
    """Random, and the same for ever: by hash of the group, so that new images do not reshuffle old ones.

    What the next verdict lacks comes first; within a split the draw stays a draw.
    """
    lots = sorted(rows, key=lambda row: lot(seed, pool.groups[row]))
    left = {split: deque(row for row in lots if pool.splits[row] is split) for split in JUDGING}
    drawn: Counter[Split] = Counter()
    first: list[int] = []
    while (split := quota.split(drawn)) is not None:
        split = split if left[split] else next(b for b in JUDGING if left[b])
        drawn[split] += 1
        first.append(left[split].popleft())
    early = set(first)
    return [(row, QUOTA) for row in (*first, *(row for row in lots if row not in early))]


@cache
def lot(seed: int, group: str) -> str:
    """The place of a group in the random order of test and audit.

    Kept, for every order asks for the same: about 200 bytes for each image of test and audit.
    """
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


def _speaks(pool: UnlabelledPool, row: int) -> bool:
    """Whether the model names a class: not where one that it does not know is likelier."""
    if pool.probabilities is None:
        return False
    return pool.unseen is None or bool(speaks(pool.probabilities[row].max(), pool.unseen[row]))


def _choice(pool: UnlabelledPool, row: int, *, why: str, priority: float, blind: bool) -> QueuePlace:
    if pool.probabilities is None or not _speaks(pool, row):
        return QueuePlace(pool.uris[row], priority, None, None, blind, why)
    best = int(pool.probabilities[row].argmax())
    sure = float(pool.probabilities[row, best]) * (1 - (float(pool.unseen[row]) if pool.unseen is not None else 0.0))
    return QueuePlace(pool.uris[row], priority, pool.labels[best], sure, blind, why)
