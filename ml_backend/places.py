"""How many calls of one project are answered at once: a project that hangs holds its own places and nobody else's."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ml_backend.contract import RequestError
from ml_backend.entrance.turns import end_turn

PLACES = 8  # of each project; with those who wait, a few projects' worth fit into the lane's threads
WAITING = 56
STILL_S = 2.0  # without anybody leaving: then nobody is likely to leave soon
WAIT_S = 10.0  # at most


@dataclass(slots=True)
class _Room:
    change: threading.Condition = field(default_factory=threading.Condition)
    inside: int = 0
    line: deque[object] = field(default_factory=deque)  # first come, first served: nobody who comes back passes
    entering: int = 0
    moved: float = field(default_factory=time.monotonic)  # when somebody last came or went


class Places:
    """Counts calls by project, before anything is asked that could hang."""

    def __init__(
        self, places: int = PLACES, waiting: int = WAITING, still_s: float = STILL_S, wait_s: float = WAIT_S
    ) -> None:
        self._places, self._waiting, self._still_s, self._wait_s = places, waiting, still_s, wait_s
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
                room.entering += 1  # from here on nobody forgets the room
        with room.change:
            entered = self._wait(room)
            room.entering -= 1
            if entered:
                room.inside += 1
                room.moved = time.monotonic()
        if not entered:
            self._forget(key, room)
            raise RequestError(f"{self._places} requests of this project are being answered; try again soon", 503)
        return room

    def _wait(self, room: _Room) -> bool:
        """Whether there is a place, after a wait that ends when nothing moves."""
        if room.inside < self._places and not room.line:
            return True
        if self._is_still(room) or len(room.line) >= self._waiting:
            return False
        end_turn()
        ticket = object()
        room.line.append(ticket)
        try:
            return self._reaches_the_front(room, ticket)
        finally:
            room.line.remove(ticket)
            room.change.notify_all()

    def _reaches_the_front(self, room: _Room, ticket: object) -> bool:
        end = time.monotonic() + self._wait_s
        while room.inside >= self._places or room.line[0] is not ticket:
            if self._is_still(room) or time.monotonic() > end:
                return False
            room.change.wait(self._still_s / 4)
        return True

    def _is_still(self, room: _Room) -> bool:
        return time.monotonic() - room.moved > self._still_s

    def _leave(self, key: str, room: _Room) -> None:
        with room.change:
            room.inside -= 1
            room.moved = time.monotonic()
            room.change.notify_all()
        self._forget(key, room)

    def _forget(self, key: str, room: _Room) -> None:
        """Anybody can name anything: only rooms in use are kept."""
        with self._lock, room.change:
            if not room.inside and not room.entering:
                self._rooms.pop(key, None)
