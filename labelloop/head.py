"""Features in, class probabilities out: the small, often replaced half of a model (numpy only)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from labelloop.errors import CorruptArtefactError

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Head:
    """Linear and calibrated. ``weight`` (classes, features), ``bias`` (classes,), both float32."""

    labels: tuple[str, ...]  # class order of the rows of ``weight``
    weight: Floats
    bias: Floats
    temperature: float = 1.0

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

    def dump(self) -> bytes:
        """Safetensors bytes of weight, bias and temperature; the labels live in the version's JSON."""
        temperature = np.array([self.temperature], dtype=np.float32)
        return bytes(save({"weight": self.weight, "bias": self.bias, "temperature": temperature}))


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
    return Head(labels, weight, bias, temperature)
