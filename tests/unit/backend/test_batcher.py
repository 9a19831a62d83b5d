"""Images of several calls in one batch: each call gets its own rows, small calls do not wait for large ones."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ml_backend.batcher import IN_A_ROW, TOGETHER, Batcher, Floats, Pixels


def images(count: int, value: int) -> Pixels:
    return np.full((count, 3, 2, 2), value, dtype=np.uint8)


class Network:
    """Rows that tell the images; holds still while it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.begun = threading.Event()

    def __call__(self, pixels: Pixels) -> Floats:
        self.begun.set()
        assert self.go.wait(10)
        values = pixels[:, 0, 0, 0]
        self.batches.append(values.tolist())
        return np.repeat(values.astype(np.float32)[:, None], 4, axis=1)


def test_each_call_gets_its_own_rows_in_order() -> None:
    network = Network()
    network.go.set()
    batcher = Batcher(network)
    sizes = [1, 3, 8, 9, 33, 1, 2]
    with ThreadPoolExecutor(len(sizes)) as pool:
        found = list(pool.map(lambda n: batcher.features(images(sizes[n], n)), range(len(sizes))))
    for n, rows in enumerate(found):
        assert rows.shape == (sizes[n], 4)
        assert (rows == n).all()
    assert all(len(batch) <= TOGETHER for batch in network.batches)


def waiting(network: Network, batcher: Batcher, calls: list[int]) -> ThreadPoolExecutor:
    """The calls, in this order, behind one that is being computed."""
    pool = ThreadPoolExecutor(len(calls) + 1)
    pool.submit(batcher.features, images(TOGETHER, 99))
    assert network.begun.wait(10)
    for n, size in enumerate(calls):
        before = len(batcher._small) + len(batcher._large)
        pool.submit(batcher.features, images(size, n))
        while len(batcher._small) + len(batcher._large) == before:
            pass
    return pool


def test_small_calls_overtake_a_large_one_and_share_a_batch() -> None:
    network = Network()
    pool = waiting(network, Batcher(network), [40, 1, 1, 2])
    network.go.set()
    pool.shutdown(wait=True)
    assert network.batches[1] == [1, 2, 3, 3]
    assert sum(batch.count(0) for batch in network.batches) == 40


def test_a_large_call_is_not_held_up_for_ever() -> None:
    network = Network()
    pool = waiting(network, Batcher(network), [16, *[TOGETHER] * (2 * IN_A_ROW)])
    network.go.set()
    pool.shutdown(wait=True)
    assert [batch[0] for batch in network.batches].index(0) == IN_A_ROW  # the first of all was a small one


def test_what_fails_is_told_to_those_who_asked() -> None:
    def broken(_pixels: Pixels) -> Floats:
        raise ValueError("no numbers")

    batcher = Batcher(broken)
    for _ in range(2):
        with pytest.raises(ValueError, match="no numbers"):
            batcher.features(images(20, 1))
