"""Features in, class probabilities out: the small, often replaced half of a model (numpy only)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from labelloop.errors import CorruptArtefactError
from labelloop.records.arrays import Floats

ODDS = "novelty.odds"


@dataclass(frozen=True, slots=True)
class Novelty:
    """How likely an image is of a class that nobody has labelled yet: by its likeness to the class that is nearest."""

    centre: Floats  # (features,): mean of what is seen, each row of length 1
    means: Floats  # (classes, features): directions of the labelled classes from there, each of length 1
    slope: float  # of the log odds, per unit of likeness; not negative
    offset: float

    def likeness(self, features: Floats) -> Floats:
        """(n, features) to (n,) in [-1, 1]: the cosine to the nearest class."""
        return np.asarray((unit(unit(features) - self.centre) @ self.means.T).max(axis=1), dtype=np.float32)

    def probabilities(self, features: Floats) -> Floats:
        """(n, features) to (n,) in [0, 1]: of a class without a label."""
        return self.of(self.likeness(features))

    def of(self, likeness: Floats) -> Floats:
        """The same of (n,) likenesses."""
        return np.asarray(1 / (1 + np.exp(np.clip(self.slope * likeness - self.offset, -60, 60))), dtype=np.float32)


def speaks(probability: Floats, unseen: Floats) -> NDArray[np.bool_]:
    """(n,) of the likeliest class among those with a label, (n,) of a class without one, to whether it is named.

    Not where the image is likelier of a class that nobody has labelled yet than of that one.
    """
    return np.asarray((1 - unseen) * probability >= unseen, dtype=np.bool_)


def unit(rows: Floats) -> Floats:
    """Each row of length 1."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Head:
    """Linear and calibrated. ``weight`` (classes, features), ``bias`` (classes,), both float32."""

    labels: tuple[str, ...]  # class order of the rows of ``weight``
    weight: Floats
    bias: Floats
    temperature: float = 1.0
    novelty: Novelty | None = None  # None: every class that people can choose has a label

    @property
    def dimension(self) -> int:
        """How many features a row has."""
        return int(self.weight.shape[1])

    def probabilities(self, features: Floats) -> Floats:
        """(n, features) float32 to (n, classes) float32, rows sum to 1."""
        logits = (features @ self.weight.T + self.bias) / self.temperature
        logits -= logits.max(axis=1, keepdims=True)
        exp = np.exp(logits, dtype=np.float32)
        return np.asarray(exp / exp.sum(axis=1, keepdims=True), dtype=np.float32)

    def unseen(self, features: Floats) -> Floats:
        """(n, features) to (n,) in [0, 1]: how likely each is of none of the classes, but of one without a label."""
        return self.novelty.probabilities(features) if self.novelty else np.zeros(len(features), dtype=np.float32)

    def dump(self) -> bytes:
        """Safetensors bytes of everything but the labels, which live in the version's JSON.

        An older release reads the head and leaves the novelty out.
        """
        temperature = np.array([self.temperature], dtype=np.float32)
        tensors = {"weight": self.weight, "bias": self.bias, "temperature": temperature}
        if self.novelty:
            odds = np.array([self.novelty.slope, self.novelty.offset], dtype=np.float32)
            tensors |= {"novelty.centre": self.novelty.centre, "novelty.means": self.novelty.means, ODDS: odds}
        return bytes(save(tensors))


def load_head(data: bytes, labels: tuple[str, ...]) -> Head:
    """The inverse of `Head.dump`; CorruptArtefactError where shapes, labels or values do not fit."""
    try:
        tensors = load(data)
        weight, bias, temperature = tensors["weight"], tensors["bias"], float(tensors["temperature"][0])
    except (SafetensorError, KeyError, IndexError) as error:
        raise CorruptArtefactError(f"the head cannot be read: {error}") from error
    if weight.shape[:1] != (len(labels),) or bias.shape != (len(labels),):
        raise CorruptArtefactError(f"the head has {weight.shape[0]} classes, the version lists {len(labels)}")
    if not (np.isfinite(weight).all() and np.isfinite(bias).all() and temperature > 0):
        raise CorruptArtefactError("the head holds values that are not finite")
    return Head(labels, weight, bias, temperature, _novelty(tensors, weight.shape) if ODDS in tensors else None)


def _novelty(tensors: Mapping[str, Floats], shape: tuple[int, ...]) -> Novelty:
    try:
        parts = tensors["novelty.centre"], tensors["novelty.means"], tensors[ODDS]
    except KeyError as error:
        raise CorruptArtefactError(f"the head's novelty cannot be read: {error} is missing") from error
    if [part.shape for part in parts] != [shape[1:], shape, (2,)]:
        raise CorruptArtefactError("the head's novelty is not of its classes and features")
    if not (all(np.isfinite(part).all() for part in parts) and parts[2][0] >= 0):
        raise CorruptArtefactError("the head's novelty holds values that cannot be")
    centre, means, odds = parts
    return Novelty(centre, means, float(odds[0]), float(odds[1]))
