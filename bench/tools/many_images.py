"""Many small distinct images of known classes: scikit-learn's digits, each shifted and noised anew."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from labelloop.objects.storage import ObjectStore
from labelloop.records.json import digest

SIDE = 16
WRITERS = 16


def truth(count: int, prefix: str) -> dict[str, str]:
    """Object key -> class; the key tells nothing of it."""
    targets = load_digits().target
    return {_key(i, prefix): str(targets[i % len(targets)]) for i in range(count)}


def upload(store: ObjectStore, count: int, prefix: str, report: Callable[[int], None]) -> None:
    """Put what is not there yet, by many threads."""
    present = {info.key for info in store.list(prefix)}
    images, lock, done = load_digits().images, threading.Lock(), [len(present)]

    def put(number: int) -> None:
        store.put(_key(number, prefix), png(images[number % len(images)], number))
        with lock:
            done[0] += 1
        if done[0] % 5000 == 0:
            report(done[0])

    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(put, _missing(count, prefix, present)):
            pass


def png(image: np.ndarray[tuple[int, ...], np.dtype[np.float64]], seed: int) -> bytes:
    """One digit, dark on white, at a place and with noise of its own."""
    rng = np.random.default_rng(seed)
    gray = np.full((SIDE, SIDE), 255.0)
    top, left = rng.integers(0, SIDE - 12, 2)
    gray[top : top + 12, left : left + 12] -= np.kron(image, np.ones((2, 2)))[2:14, 2:14] * (255 / 16)
    gray += rng.normal(0, 12, gray.shape)
    out = io.BytesIO()
    Image.fromarray(np.uint8(np.clip(gray, 0, 255)), mode="L").save(out, "PNG", compress_level=1)
    return out.getvalue()


def _missing(count: int, prefix: str, present: set[str]) -> Iterator[int]:
    return (i for i in range(count) if _key(i, prefix) not in present)


def _key(number: int, prefix: str) -> str:
    return f"{prefix}{digest(f'large:{number}'.encode())[:16]}.png"
