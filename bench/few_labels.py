"""`python -m bench.few_labels`: heads of ten to forty labels: what prototypes, whitening, self-training and pool add.

The same draws, labels and test images for every head; labels in random order, and as `auto` asks for them at the start.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.acquisition import history
from labelloop.config.project import load_config
from labelloop.records.arrays import Floats
from labelloop.rules.acquisition import Query, strategy
from retrain_worker.replay.history import Draw, Ints, LabelledImages, draw
from retrain_worker.replay.student import Student

COUNTS = (10, 20, 40)
ORDERS = ("random", "herding")
SURE = 0.9  # self-training believes answers from here on
COMPONENTS = 128

Heads = Mapping[str, Callable[[Draw, Ints, int], float]]


def of_loop(drawn: Draw, labelled: Ints, classes: int) -> float:
    """Accuracy of the loop's own head, which takes the pool in where that helps out of fold."""
    return _taught(drawn, labelled, classes, with_pool=True).accuracy()


def alone(drawn: Draw, labelled: Ints, classes: int) -> float:
    """Logistic regression, its strength searched out of fold."""
    return _taught(drawn, labelled, classes, with_pool=False).accuracy()


def prototypes(drawn: Draw, labelled: Ints, _classes: int) -> float:
    """The class whose mean direction is nearest."""
    mean = drawn.pool.features.mean(axis=0)
    rows, test = _unit(drawn.pool.features[labelled] - mean), _unit(drawn.test.features - mean)
    known = np.unique(drawn.pool.labels[labelled])
    means = _unit(np.array([rows[drawn.pool.labels[labelled] == k].mean(axis=0) for k in known]))
    return float((known[(test @ means.T).argmax(axis=1)] == drawn.test.labels).mean())


def whitened(drawn: Draw, labelled: Ints, classes: int) -> float:
    """Logistic regression on principal components of the pool, each scaled to the same variance."""
    mean = drawn.pool.features.mean(axis=0)
    _, scale, directions = np.linalg.svd(drawn.pool.features - mean, full_matrices=False)
    by = directions[:COMPONENTS].T / np.maximum(scale[:COMPONENTS], 1e-6)

    def turned(part: LabelledImages) -> LabelledImages:
        return LabelledImages(_unit((part.features - mean) @ by), part.labels, part.groups)

    return _taught(Draw(turned(drawn.pool), turned(drawn.test)), labelled, classes, with_pool=False).accuracy()


def self_training(drawn: Draw, labelled: Ints, classes: int) -> float:
    """The head learns once more, with those of the pool that it is sure of under its own answers."""
    student = _taught(drawn, labelled, classes, with_pool=False)
    found = student.probabilities(student.rows)
    said = found.argmax(axis=1)
    said[labelled] = drawn.pool.labels[labelled]
    sure = found.max(axis=1) >= SURE
    sure[labelled] = False
    believed = np.concatenate([labelled, np.flatnonzero(sure)])
    student.learn(believed, said[believed])
    return student.accuracy()


HEADS: Heads = {
    "the loop's": of_loop, "labels alone": alone, "prototypes": prototypes, "whitened": whitened,
    "self-training": self_training,
}  # fmt: skip


def _taught(drawn: Draw, labelled: Ints, classes: int, *, with_pool: bool) -> Student:
    student = Student.of(drawn, classes, with_pool=with_pool)
    student.learn(labelled, drawn.pool.labels[labelled])
    return student


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def first(drawn: Draw, order: str, seed: int) -> Ints:
    """Rows of the pool in the order in which they are labelled."""
    pool = drawn.pool.features
    nothing = Query(
        len(pool), lambda rows: pool[rows], None, pool[:0], drawn.pool.labels[:0], COUNTS[-1], seed
    )  # fmt: skip
    return strategy(order).order(nothing, COUNTS[-1])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with the sets; digits need none")
    parser.add_argument("--sets", default="digits,covid_xray,caltech20,intel_scenes")
    parser.add_argument("--config", type=Path, default=Path("configs/intel_scenes.yaml"), help="the backbone's")
    parser.add_argument("--keep", type=Path, default=Path(".labelloop-features"), help="kept features")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    for name in given.sets.split(","):
        found = history(name, given.data, load_config(given.config), given.keep)
        table = Table("head", *(f"{order} {n}" for order in ORDERS for n in COUNTS), box=None, title=name)
        scores: dict[str, list[list[float]]] = {head: [] for head in HEADS}
        for seed in range(given.seeds):
            drawn = draw(found, seed)
            rows = [first(drawn, order, seed)[:n] for order in ORDERS for n in COUNTS]
            for head, judge in HEADS.items():
                scores[head].append([judge(drawn, labelled, len(found.classes)) for labelled in rows])
        for head, of_seeds in scores.items():
            means = np.mean(of_seeds, axis=0)
            table.add_row(head, *(f"{v:.3f}" for v in means))
            print(json.dumps({"bench": "few_labels", "set": name, "head": head, "accuracy": means.tolist()}))
        Console(width=160).print(table)


if __name__ == "__main__":
    main()
