"""`python -m bench.backbones`: what each network of the table is worth on frozen features, and what it costs.

The loop's own logistic regression on 5 and 20 random labels of each class and on all; every network gets the same
draws. The rate is CPU time of one thread, decoding not counted. `labelloop/config/networks.py` holds what follows.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.acquisition import history
from labelloop.config.networks import NETWORKS, PIXELS
from labelloop.config.project import BackboneSpec, ProjectConfig
from retrain_worker.replay.history import Draw, Ints, ReplayHistory, draw
from retrain_worker.replay.student import Student

EACH = (5, 20)
ALL = 3000  # labels at most: more take long and change little
TIMED = 96  # images
OPTIONS = {"mobilenetv2_100": {"pad_type": "same"}}  # what its weights were made with


def config_of(network: str) -> ProjectConfig:
    """A project that names this network."""
    return ProjectConfig(backbone=BackboneSpec(name=network, options=OPTIONS.get(network, {})))


def accuracies(found: ReplayHistory, seeds: int) -> list[float]:
    """Mean accuracy at 5 and 20 labels per class and at all labels."""
    rows = [_of_seed(found, seed) for seed in range(seeds)]
    return [float(v) for v in np.mean(rows, axis=0)]


def _of_seed(found: ReplayHistory, seed: int) -> list[float]:
    drawn, order = draw(found, seed), np.random.default_rng(seed)
    shuffled = order.permutation(len(drawn.pool.labels))
    some = [_each(drawn, shuffled, n) for n in EACH]
    return [_taught(drawn, rows, len(found.classes)) for rows in (*some, shuffled[:ALL])]


def _each(drawn: Draw, shuffled: Ints, n: int) -> Ints:
    labels = drawn.pool.labels[shuffled]
    return np.concatenate([shuffled[labels == k][:n] for k in np.unique(labels)])


def _taught(drawn: Draw, rows: Ints, classes: int) -> float:
    student = Student.of(drawn, classes, with_pool=False)
    student.learn(rows, drawn.pool.labels[rows])
    return student.accuracy()


def rate(network: str) -> float:
    """Images per CPU second of one thread."""
    import torch

    from labelloop.config.settings import load_settings
    from labelloop.model import net

    torch.set_num_threads(1)
    settings = load_settings()
    backbone = net.build(config_of(network).backbone, settings.weights_dirs, offline=True)
    size = backbone.square.size
    images = np.random.default_rng(0).integers(0, 255, (TIMED, 3, size, size), dtype=np.uint8)
    backbone.features(images[:8])
    began = time.process_time()
    for start in range(0, TIMED, 8):
        backbone.features(images[start : start + 8])
    return TIMED / (time.process_time() - began)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with the sets; digits need none")
    parser.add_argument("--sets", default="digits,caltech20,covid_xray,intel_scenes,cifar10_12k")
    parser.add_argument("--networks", default=",".join((PIXELS, *(row.name for row in NETWORKS))))
    parser.add_argument("--keep", type=Path, default=Path(".labelloop-features"), help="kept features")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    networks = given.networks.split(",")
    for name in given.sets.split(","):
        table = Table("network", "5 a class", "20 a class", "all", box=None, title=name)
        for network in networks:
            config = config_of(network)
            scores = accuracies(history(name, given.data, config, given.keep, digits=config), given.seeds)
            table.add_row(network, *(f"{v:.3f}" for v in scores))
            print(json.dumps({"bench": "backbones", "set": name, "network": network, "accuracy": scores}), flush=True)
        Console(width=100).print(table)
    for network in networks:
        print(json.dumps({"bench": "backbones", "network": network, "images_per_cpu_s": rate(network)}), flush=True)


if __name__ == "__main__":
    main()
