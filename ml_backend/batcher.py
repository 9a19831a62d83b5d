"""Images of all calls meet here: small calls first, as many images at once as the network likes, one thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelloop.decoding.square import Pixels

TOGETHER = 8  # images: fewer cost more each, more only make others wait
IN_A_ROW = 4  # batches of small calls, then large ones have one

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Piece:
    images: Pixels
    future: Future[Floats]


class Batcher:
    """One thread: every further one would bring a pool of native threads of its own.

    What waits is bounded by the calls that a project's places let in, and by the images that each holds at once.
    """

    def __init__(self, run: Callable[[Pixels], Floats]) -> None:
        self._run = run
        self._small: deque[_Piece] = deque()
        self._large: deque[_Piece] = deque()
        self._lock = threading.Lock()
        self._row = 0  # batches of small calls since a large one's
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="compute")

    def features(self, images: Pixels, *, bulk: bool = False) -> Floats:
        """(n, 3, size, size) uint8 to (n, dimension); whatever the network raises.

        ``bulk``: part of a large call, as every call of more than `TOGETHER` images is.
        """
        pieces = [_Piece(images[i : i + TOGETHER], Future()) for i in range(0, len(images), TOGETHER)]
        with self._lock:
            (self._large if bulk or len(pieces) > 1 else self._small).extend(pieces)
        for _ in pieces:
            self._pool.submit(self._next)
        return np.concatenate([piece.future.result() for piece in pieces])

    def _next(self) -> None:
        pieces = self._taken()
        if not pieces:
            return  # they went with others
        try:
            rows = self._run(np.concatenate([piece.images for piece in pieces]))
        except BaseException as error:  # it is raised where the rows are asked for
            for piece in pieces:
                piece.future.set_exception(error)
            return
        start = 0
        for piece in pieces:
            piece.future.set_result(rows[start : start + len(piece.images)])
            start += len(piece.images)

    def _taken(self) -> list[_Piece]:
        with self._lock:
            first, then = (self._small, self._large) if self._row < IN_A_ROW else (self._large, self._small)
            self._row = self._row + 1 if self._small and first is self._small else 0
            pieces: list[_Piece] = []
            for line in (first, then):
                while line and sum(len(p.images) for p in (*pieces, line[0])) <= TOGETHER:
                    pieces.append(line.popleft())
            return pieces
