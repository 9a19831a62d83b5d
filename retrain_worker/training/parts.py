"""What a run learns from and what stops it: images, targets and weights, never of test or audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from labelloop.records.images import Example, Split
from labelloop.rules.split import unit
from retrain_worker.training.pixel_cache import Images

Balance = Literal["none", "weights", "sampling"]


@dataclass(frozen=True, slots=True)
class Part:
    """``images`` (n, 3, H, W) uint8, perhaps mapped; ``targets`` (n,) int64 in [0, classes); ``weights`` (n,)."""

    images: Images
    targets: NDArray[np.int64]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything a run sees. ``validation`` may be empty: then the last epoch is the best."""

    train: Part
    validation: Part
    classes: tuple[str, ...]


def divide(examples: Sequence[Example], share: float) -> tuple[list[Example], list[Example]]:
    """Train and validation examples, by hash of the duplicate group: a later label moves none of them.

    A class keeps at least one example to learn from. ValueError for an example of another split than train.
    """
    foreign = next((e for e in examples if e.bucket is not Split.TRAIN), None)
    if foreign is not None:
        raise ValueError(f"{foreign.uri} is in the {foreign.bucket} split, which never trains")
    train = [e for e in examples if unit(f"validation:{e.group}") >= share]
    learned = {e.label for e in train}
    kept = [e for e in examples if unit(f"validation:{e.group}") < share]
    return train + [e for e in kept if e.label not in learned], [e for e in kept if e.label in learned]


def class_weights(targets: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """(n,) weights with mean 1 that give every class the same sum."""
    counts = np.bincount(targets, minlength=classes)
    weights = 1.0 / counts[targets]
    return np.asarray(weights * len(targets) / weights.sum(), dtype=np.float32)


def weighted(part: Part, classes: int) -> Part:
    """The part with weights that give every class the same say."""
    return Part(part.images, part.targets, part.weights * class_weights(part.targets, classes))
