"""The order of an epoch, and batches read ahead by a thread, so that the network never waits for memory or disk."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrain_worker.training.parts import Balance, Part, class_weights

AHEAD = 3  # batches


@dataclass(frozen=True, slots=True)
class Batch:
    """``images`` (b, 3, H, W) uint8, ``targets`` (b,) int64, ``weights`` (b,) float32, on the host."""

    images: Tensor
    targets: Tensor
    weights: Tensor


@dataclass(frozen=True, slots=True)
class Shard:
    """Which of several processes this one is: each takes its share of every batch."""

    rank: int = 0
    world: int = 1


@dataclass
class Waits:
    """Seconds for which the trainer waited for data."""

    seconds: float = 0.0


def epoch_order(part: Part, epoch: int, *, seed: int, balance: Balance, classes: int) -> NDArray[np.int64]:
    """(n,) places of the part's rows for one epoch; the same for the same arguments.

    ``sampling``: drawn with replacement, every class as likely. Otherwise each row once.
    """
    draw = np.random.default_rng((seed, epoch))
    if balance == "sampling":
        weights = class_weights(part.targets, classes).astype(np.float64)
        return draw.choice(len(part), size=len(part), p=weights / weights.sum())
    return draw.permutation(len(part))


def steps_per_epoch(n: int, size: int, world: int = 1) -> int:
    """Batches of an epoch; a last one of a single row per process is left out: batch norm cannot learn from it."""
    whole, rest = divmod(n, size)
    return max(1, whole + (rest >= 2 * world))


def batches(part: Part, order: NDArray[np.int64], size: int, shard: Shard, waits: Waits) -> Iterator[Batch]:
    """Batches of ``size`` rows in all processes together, in order, gathered ahead by a thread."""
    reader = _Reader(part, order, size, shard)
    reader.start()
    try:
        for _ in range(steps_per_epoch(len(order), size, shard.world)):
            began = time.monotonic()
            batch = reader.next()
            waits.seconds += time.monotonic() - began
            yield batch
    finally:
        reader.stop()


@dataclass
class _Reader:
    part: Part
    order: NDArray[np.int64]
    size: int
    shard: Shard
    _ready: queue.Queue[Batch | BaseException] = field(default_factory=lambda: queue.Queue(AHEAD))
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        threading.Thread(target=self._run, name="batches", daemon=True).start()

    def next(self) -> Batch:
        batch = self._ready.get()
        if isinstance(batch, BaseException):
            raise batch
        return batch

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        try:
            for step in range(steps_per_epoch(len(self.order), self.size, self.shard.world)):
                rows = self.order[step * self.size : (step + 1) * self.size][self.shard.rank :: self.shard.world]
                self._put(self._batch(rows))
        except BaseException as error:
            self._put(error)

    def _batch(self, rows: NDArray[np.int64]) -> Batch:
        images = torch.from_numpy(self.part.images[rows])  # fancy indexing copies: a map is read here
        return Batch(
            images.pin_memory() if torch.cuda.is_available() else images,
            torch.from_numpy(self.part.targets[rows]),
            torch.from_numpy(self.part.weights[rows]),
        )

    def _put(self, item: Batch | BaseException) -> None:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=0.5)
                return
            except queue.Full:
                continue
