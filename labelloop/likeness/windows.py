"""Thumbnails in, images that may show the same out: cheap, and deaf to a shift, a crop, a border or a mirror.

The hash of the middle of every image is kept (256 bits, signs of the lowest frequencies). A new image is asked for by
the same hash of 77 windows of it and their mirror images. What is found is a candidate, never a proof.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

from labelloop.decoding.square import Pixels, Square, decode
from labelloop.likeness.proof import GRAY, SIDE, zoomed
from labelloop.records.arrays import Floats

MIDDLE = 0.85  # of the side: what the kept hash covers
MOVES = (-0.05, -0.025, 0.0, 0.025, 0.05)  # shares of the side
ZOOMS = {0.73: (0.0,), 0.78: MOVES, 0.85: MOVES, 0.92: MOVES, 0.985: (0.0,)}  # the first and last: a wide border
NEAR = 64  # bits of 256, at most
NEAR_FIRST = 16  # of the 64 lowest frequencies: settles nearly all images without the other three quarters
SAMPLED, LOWEST = 64, 16
WORDS = LOWEST * LOWEST // 64
THUMB = Square(SIDE, squash=True, interpolation="bilinear")

Words = NDArray[np.uint64]
_ORDER = np.argsort(np.add.outer(np.arange(LOWEST), np.arange(LOWEST)).ravel(), kind="stable")  # lowest first
_MIRROR = np.where(np.arange(LOWEST) % 2, -1.0, 1.0)  # of the frequencies across


def thumb_of(data: bytes) -> Pixels:
    """(`SIDE`, `SIDE`, 3) uint8, whatever the shape of the image; ImageUnreadableError."""
    return np.ascontiguousarray(decode(data, THUMB).transpose(1, 2, 0))


@dataclass(frozen=True, slots=True)
class Window:
    """A part of an image, perhaps mirrored."""

    zoom: float
    right: float
    down: float
    mirrored: bool

    @property
    def guess(self) -> Floats:
        """Where places of the image lie in the one whose middle this window looks like."""
        scale = MIDDLE / self.zoom
        return zoomed(scale, -scale * self.right, -scale * self.down)


def _rows(zoom: float, move: float) -> Floats:
    """(`LOWEST`, `SIDE`): the lowest frequencies of a window of one side."""
    at = (0.5 + move + zoom * ((np.arange(SAMPLED) + 0.5) / SAMPLED - 0.5)) * SIDE - 0.5
    left = np.clip(np.floor(at), 0, SIDE - 1).astype(int)
    right, share = np.clip(left + 1, 0, SIDE - 1), np.clip(at - left, 0, 1)
    sampling = np.zeros((SAMPLED, SIDE))
    np.add.at(sampling, (np.arange(SAMPLED), left), 1 - share)
    np.add.at(sampling, (np.arange(SAMPLED), right), share)
    return np.asarray(dct(np.eye(SAMPLED), axis=0, norm="ortho")[:LOWEST] @ sampling, dtype=np.float32)


_MIDDLE = _rows(MIDDLE, 0.0)
_BY_ZOOM = {zoom: np.concatenate([_rows(zoom, move) for move in moves]) for zoom, moves in ZOOMS.items()}
WINDOWS = tuple(
    Window(zoom, right, down, mirrored)
    for zoom, moves in ZOOMS.items() for mirrored in (False, True) for down, right in product(moves, moves)
)  # fmt: skip


def middle_hash(thumb: Pixels) -> str:
    """64 hex digits: what is kept of an image."""
    gray = thumb.astype(np.float32) @ GRAY
    return _bits((_MIDDLE @ gray @ _MIDDLE.T)[None]).tobytes().hex()


def window_words(thumb: Pixels) -> Words:
    """(`WINDOWS`, `WORDS`): the same hash of every window."""
    gray, frequencies = thumb.astype(np.float32) @ GRAY, []
    for zoom, rows in _BY_ZOOM.items():
        many = len(ZOOMS[zoom])
        parts = (rows @ gray @ rows.T).reshape(many, LOWEST, many, LOWEST).transpose(0, 2, 1, 3)
        parts = parts.reshape(-1, LOWEST, LOWEST)
        frequencies += [parts, parts * _MIRROR]
    return np.ascontiguousarray(_bits(np.concatenate(frequencies))).view(np.uint64)


def _bits(frequencies: Floats) -> NDArray[np.uint8]:
    flat = frequencies.reshape(len(frequencies), -1)[:, _ORDER]
    return np.packbits(flat > np.median(flat, axis=1, keepdims=True), axis=1)


@dataclass(frozen=True, slots=True)
class Hit:
    """An image that may show the same, and by which window."""

    uri: str
    bits: int
    window: Window


class WindowIndex:
    """The kept hashes of known images."""

    def __init__(self) -> None:
        self._words: list[Words] = [np.zeros(1024, dtype=np.uint64) for _ in range(WORDS)]  # the first word apart
        self._uris: list[str] = []
        self._hashes: dict[str, str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._uris)

    def add(self, hashes: Iterable[tuple[str, str]]) -> None:
        """(uri, hash) of images; one whose file was overwritten is found by both."""
        with self._lock:
            for uri, hash_ in hashes:
                if hash_ and self._hashes.get(uri) != hash_:
                    self._hashes[uri] = hash_
                    self._append(uri, np.frombuffer(bytes.fromhex(hash_), dtype=np.uint64))

    def near(self, words: Words) -> list[Hit]:
        """Images with a window within `NEAR` bits, the nearest first. ``words``: of `window_words`."""
        many = len(self._uris)
        first, *others = (column[:many] for column in self._words)
        best: dict[str, tuple[int, int]] = {}
        for number, window in enumerate(words):
            rows = np.flatnonzero(np.bitwise_count(first ^ window[0]) <= NEAR_FIRST)
            if not len(rows):
                continue
            apart = np.bitwise_count(first[rows] ^ window[0]).astype(np.int64)
            for column, word in zip(others, window[1:], strict=True):
                apart += np.bitwise_count(column[rows] ^ word)
            for row, bits in zip(rows[apart <= NEAR], apart[apart <= NEAR], strict=True):
                uri = self._uris[row]
                if uri not in best or bits < best[uri][0]:
                    best[uri] = int(bits), number
        hits = (Hit(uri, bits, WINDOWS[number]) for uri, (bits, number) in best.items())
        return sorted(hits, key=lambda hit: (hit.bits, hit.uri))

    def _append(self, uri: str, words: Sequence[np.uint64] | Words) -> None:
        if len(self._uris) == len(self._words[0]):
            self._words = [np.concatenate([column, np.zeros_like(column)]) for column in self._words]
        for column, word in zip(self._words, words, strict=True):
            column[len(self._uris)] = word
        self._uris.append(uri)
