"""Few threads compute at a time, so that the loop that reads requests need not wait long for the interpreter.

A request has a turn from its beginning until it first waits for something: then whoever comes next goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from ml_backend.door import VIEWS, lane_of

TURNS = 3
App = Callable[[dict[str, Any], Any], Iterable[bytes]]
_mine = threading.local()


class Turns:
    """A WSGI app, with a turn for each request but those that are answered from memory."""

    def __init__(self, app: App, turns: int = TURNS) -> None:
        self._app, self._gate = app, threading.Semaphore(turns)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if lane_of(environ["PATH_INFO"]) is VIEWS:
            return self._app(environ, start_response)
        self._gate.acquire()
        _mine.gate = self._gate
        try:
            return self._app(environ, start_response)
        finally:
            end_turn()


def end_turn() -> None:
    """Said before anything that may wait; nothing where this thread has no turn."""
    gate, _mine.gate = getattr(_mine, "gate", None), None
    if gate is not None:
        gate.release()
