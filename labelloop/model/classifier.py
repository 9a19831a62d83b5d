"""The bytes of a head in, a classifier of features out: the bytes alone say of which kind."""

from __future__ import annotations

from typing import Protocol

from labelloop.model.ensemble import is_ensemble, load_ensemble
from labelloop.model.head import load_head
from labelloop.records.arrays import Floats


class Classifier(Protocol):
    """What serving, scoring and judging need of a head, and no more. Safe to call from several threads."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the columns of `probabilities`."""

    @property
    def dimension(self) -> int:
        """How many features a row has."""

    def probabilities(self, features: Floats) -> Floats:
        """(n, dimension) float32 to (n, classes) float32, rows sum to 1."""

    def unseen(self, features: Floats) -> Floats:
        """(n, dimension) to (n,) in [0, 1]: how likely each is of a class without a label; 0 where there is none."""

    def dump(self) -> bytes:
        """What `load_classifier` takes."""


def load_classifier(data: bytes, labels: tuple[str, ...]) -> Classifier:
    """The inverse of ``dump`` for every kind; CorruptArtefactError where the bytes are damaged or not a head's."""
    return load_ensemble(data, labels) if is_ensemble(data) else load_head(data, labels)
