"""Decoded images on the local disk: each is fetched and decoded once per preprocessing, then mapped into memory.

Keyed by the content's hash, so that an image that was replaced is another one. Losing it costs time, nothing else.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from labelloop.decoding.square import Pixels
from labelloop.objects import cache
from labelloop.records.json import canonical, digest

ROWS = "rows.bin"  # (n, 3, size, size) uint8, appended to
INDEX = "index.jsonl"  # one content hash per row, appended to after it


class Images(Protocol):
    """Rows of pixels that are read by place; an array, or a map of one."""

    def __getitem__(self, places: NDArray[np.int64] | slice) -> Pixels:
        """(k, 3, H, W) uint8, a copy or a view."""

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class MappedImages:
    """Some of the cache's rows, in an order of their own."""

    rows: Pixels  # the whole memory map
    places: NDArray[np.int64]

    def __getitem__(self, places: NDArray[np.int64] | slice) -> Pixels:
        return np.asarray(self.rows[self.places[places]])

    def __len__(self) -> int:
        return len(self.places)


def mapped(file: Path, shape: Sequence[int], places: NDArray[np.int64]) -> MappedImages:
    """Rows of a file of pixels; ``shape``: of all of it, (n, 3, size, size)."""
    if not len(places):
        return MappedImages(np.empty((0, *shape[1:]), dtype=np.uint8), places)
    return MappedImages(np.memmap(file, dtype=np.uint8, mode="r", shape=tuple(shape)), places)


class PixelCache:
    """One project's images after one preprocessing. Several processes of a machine may share it."""

    def __init__(self, project: Path, preprocessing: object, size: int) -> None:
        """``preprocessing``: a backbone's record of it, as plain JSON; ``size``: pixels a side that come out."""
        self._folder = cache.pixel_folder(project, digest(canonical(preprocessing))[:16])
        self._folder.mkdir(parents=True, exist_ok=True)
        cache.mark_used(self._folder)
        self._shape = (3, size, size)
        self._places: dict[str, int] = {}
        self._read = 0  # bytes of the index that were read

    def missing(self, contents: Sequence[str]) -> list[str]:
        """Those content hashes that are not there yet, each once."""
        self._update()
        return [c for c in dict.fromkeys(contents) if c not in self._places]

    def add(self, content: str, pixels: Pixels) -> None:
        """Keep one image, (3, size, size) uint8; OSError where the disk is full."""
        with self._locked():
            self._update()
            if content in self._places:
                return
            # a process that was killed in the middle leaves half a row: it is written over
            with (self._folder / ROWS).open("r+b" if (self._folder / ROWS).exists() else "w+b") as rows:
                rows.seek(len(self._places) * self._row)
                rows.write(np.ascontiguousarray(pixels).tobytes())
            with (self._folder / INDEX).open("ab") as index:
                index.truncate(self._read)
                index.write(json.dumps(content).encode() + b"\n")
            self._update()

    def images(self, contents: Sequence[str]) -> MappedImages:
        """These images, mapped; KeyError where one is missing."""
        self._update()
        places = np.array([self._places[c] for c in contents], dtype=np.int64)
        return mapped(self._folder / ROWS, (len(self._places), *self._shape), places)

    @property
    def _row(self) -> int:
        return int(np.prod(self._shape))

    def _update(self) -> None:
        """Read what other processes have added; a last line without its end is none yet."""
        path = self._folder / INDEX
        if not path.exists():
            return
        with path.open("rb") as index:
            index.seek(self._read)
            whole = index.read().rpartition(b"\n")[0]
        for line in whole.splitlines():
            self._places[json.loads(line)] = len(self._places)
        self._read += len(whole) + 1 if whole else 0

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
