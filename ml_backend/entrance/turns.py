"""One thread computes at a time, so that the loop that reads requests need not wait long for the interpreter.

A request has the turn from its beginning until it first waits for something: then the longest waiting one goes on.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turnstile:
    """A lock that is handed on in order: one of Python's goes to the thread that released it and comes back."""

    def __init__(self) -> None:
        self._lock, self._taken = threading.Lock(), False
        self._line: deque[threading.Lock] = deque()

    def acquire(self) -> None:
        """Wait for one's turn."""
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._line.append(mine)
        mine.acquire()

    def release(self) -> None:
        """Hand it on."""
        with self._lock:
            if self._line:
                self._line.popleft().release()
            else:
                self._taken = False


_gate = Turnstile()
_mine = threading.local()


@contextmanager
def turn() -> Iterator[None]:
    """The block has the turn, until it says `end_turn`."""
    _gate.acquire()
    _mine.has_turn = True
    try:
        yield
    finally:
        end_turn()


def end_turn() -> None:
    """Said before anything that may wait; nothing where this thread has no turn."""
    had, _mine.has_turn = getattr(_mine, "has_turn", False), False
    if had:
        _gate.release()
