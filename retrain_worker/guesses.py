"""Features and a head in, the likeliest classes of each image out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labelloop.model.classifier import Classifier
from labelloop.records.arrays import Floats
from labelloop.records.batches import Guess
from labelloop.rules.schema import Names


def guesses(head: Classifier, names: Names, files: Sequence[str], features: Floats, top: int) -> list[Guess]:
    """One for each of ``files``; ``features`` is (len(files), dimension), ``names``: what the classes are called now.

    Probabilities are of that class and of no class without a label, as in pre-labels.
    """
    if not len(files):
        return []
    rows = names.of(head.probabilities(features)) * (1 - head.unseen(features))[:, None]
    return likeliest(files, rows, names.labels, top)


def likeliest(files: Sequence[str], rows: Floats, labels: Sequence[str], top: int) -> list[Guess]:
    """``rows``: (len(files), labels) probabilities."""
    best = np.argsort(-rows, axis=1, kind="stable")[:, :top]
    return [
        _guess(file, [(labels[i], round(float(row[i]), 6)) for i in order])
        for file, row, order in zip(files, rows, best, strict=True)
    ]


def _guess(file: str, top: list[tuple[str, float]]) -> Guess:
    label, probability = top[0]
    return Guess(file, label, probability, tuple(top))
