"""How many calls of one project are answered at once: a project that hangs holds its own places and nobody else's."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ml_backend.contract import RequestError
from ml_backend.turns import end_turn

PLACES = 8  # of each project; with those who wait, a few projects' worth fit into the lane's threads
WAITING = 56
WAIT_S = 0.5


@dataclass(slots=True)
class _Room:
    change: threading.Condition = field(default_factory=threading.Condition)
    inside: int = 0
    waiting: int = 0
    moved: float = field(default_factory=time.monotonic)  # when somebody last came or went


class Places:
    """Counts calls by project, before anything is asked that could hang."""

    def __init__(self, places: int = PLACES, waiting: int = WAITING, wait_s: float = WAIT_S) -> None:
        self._places, self._waiting, self._wait_s = places, waiting, wait_s
        self._rooms: dict[str, _Room] = {}
        self._lock = threading.Lock()

    @contextmanager
    def place(self, key: str) -> Iterator[None]:
        """A place for the block; RequestError (503) at once where nobody is likely to leave one soon."""
        room = self._enter(key)
        try:
            yield
        finally:
            self._leave(key, room)

    def _enter(self, key: str) -> _Room:
        with self._lock:
            room = self._rooms.setdefault(key, _Room())
            with room.change:
                room.waiting += 1  # from here on nobody forgets the room
        with room.change:
            entered = self._wait(room)
            room.waiting -= 1
            if entered:
                room.inside += 1
                room.moved = time.monotonic()
        if not entered:
            self._forget(key, room)
            raise RequestError(f"{self._places} requests of this project are being answered; try again soon", 503)
        return room

    def _wait(self, room: _Room) -> bool:
        if room.inside < self._places:
            return True
        stuck = time.monotonic() - room.moved > self._wait_s
        if stuck or room.waiting > self._waiting:
            return False
        end_turn()
        return room.change.wait_for(lambda: room.inside < self._places, self._wait_s)

    def _leave(self, key: str, room: _Room) -> None:
        with room.change:
            room.inside -= 1
            room.moved = time.monotonic()
            room.change.notify()
        self._forget(key, room)

    def _forget(self, key: str, room: _Room) -> None:
        """Anybody can name anything: only rooms in use are kept."""
        with self._lock, room.change:
            if not room.inside and not room.waiting:
                self._rooms.pop(key, None)
