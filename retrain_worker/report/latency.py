"""A backbone and its head in; how long an answer takes and how large they are out. Measured on this very machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from labelloop.decoding.square import Pixels
from labelloop.model.classifier import Classifier

if TYPE_CHECKING:
    from labelloop.model.net import Backbone

BATCH = 32
WARM_UP = 2
REPEATS = {1: 30, BATCH: 8}
LEAST = 3  # repeats, however long one takes
ENOUGH_S = 10.0  # after this no further repeat is begun

Timer = Callable[[], float]  # seconds


@dataclass(frozen=True, slots=True)
class Timing:
    """From pixels to probabilities: preprocessing's scaling, backbone and head; decoding is not in it."""

    images: int  # at once
    repeats: int
    median_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Serving:
    """What an arm costs where it serves."""

    device: str
    threads: int
    timings: tuple[Timing, ...]
    parameters: int  # of the backbone
    weight_bytes: int  # of the backbone's values, as they lie in memory
    head_bytes: int  # of its file


def serving(backbone: Backbone, head: Classifier, timer: Timer) -> Serving:
    """Time single images and batches of noise: a network's work does not depend on what it sees."""
    import torch

    module, size = backbone.module, backbone.square.size
    noise = np.random.default_rng(0).integers(0, 256, (BATCH, 3, size, size), dtype=np.uint8)
    timings = tuple(_timing(backbone, head, noise[:n], timer) for n in REPEATS)
    return Serving(
        device=str(backbone.device), threads=torch.get_num_threads(), timings=timings,
        parameters=sum(p.numel() for p in module.parameters()),
        weight_bytes=sum(v.nbytes for v in module.state_dict().values()), head_bytes=len(head.dump()),
    )  # fmt: skip


def _timing(backbone: Backbone, head: Classifier, images: Pixels, timer: Timer) -> Timing:
    for _ in range(WARM_UP):
        head.probabilities(backbone.features(images))
    took: list[float] = []
    while _goes_on(took, REPEATS[len(images)]):
        began = timer()
        head.probabilities(backbone.features(images))  # ends with a copy to the host: a GPU has finished by then
        took.append(timer() - began)
    median, p95 = np.percentile(took, (50, 95)) * 1000
    return Timing(len(images), len(took), float(median), float(p95))


def _goes_on(took: Sequence[float], repeats: int) -> bool:
    return len(took) < LEAST or (len(took) < repeats and sum(took) < ENOUGH_S)
