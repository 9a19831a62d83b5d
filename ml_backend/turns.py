"""Few threads compute at a time, so that the loop that reads requests need not wait long for the interpreter.

A request has a turn from its beginning until it first waits for something: then whoever comes next goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

TURNS = 1
_gate = threading.Semaphore(TURNS)
_mine = threading.local()


@contextmanager
def turn() -> Iterator[None]:
    """The block has a turn, until it says `end_turn`."""
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
