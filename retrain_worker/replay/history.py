"""Features and labels of images in; for each seed a pool to label from and images to be judged on, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import NotEnoughLabelsError
from labelloop.records.arrays import Floats
from labelloop.rules.split import unit

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

TEST = 0.25  # of the groups, where nothing is held out from the beginning
POOL = 0.85  # of the others, drawn again for each seed: else strategies without chance would always do the same
LEAST = 40  # images, below which nothing can be told


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Images whose labels are known."""

    features: Floats  # (n, d)
    labels: Ints  # (n,) class numbers
    groups: Sequence[str]  # duplicates share one


@dataclass(frozen=True, slots=True)
class ReplayHistory:
    """What is replayed."""

    name: str
    classes: tuple[str, ...]
    images: LabelledImages
    held_out: LabelledImages | None = None  # judged on with every seed; None: a part of ``images`` by seed


@dataclass(frozen=True, slots=True)
class Draw:
    """One seed's world."""

    pool: LabelledImages
    test: LabelledImages


def draw(history: ReplayHistory, seed: int) -> Draw:
    """The pool and the test images of a seed; a group is never on both sides. NotEnoughLabelsError."""
    if len(history.images.labels) < LEAST:
        raise NotEnoughLabelsError(
            f"{history.name} has {len(history.images.labels)} labelled images; a replay needs {LEAST} at least"
        )
    if history.held_out is not None:
        chosen = _lots(history.images.groups, f"pool:{seed}") < POOL
        return Draw(_part(history.images, chosen), history.held_out)
    tested = _lots(history.images.groups, f"test:{seed}") < TEST
    return Draw(_part(history.images, ~tested), _part(history.images, tested))


def _lots(groups: Sequence[str], salt: str) -> NDArray[np.float64]:
    return np.array([unit(f"replay:{salt}:{group}") for group in groups])


def _part(images: LabelledImages, chosen: Bools) -> LabelledImages:
    rows = np.flatnonzero(chosen)
    return LabelledImages(images.features[rows], images.labels[rows], [images.groups[i] for i in rows])
