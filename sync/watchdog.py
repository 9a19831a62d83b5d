"""Ends a process whose main loop no longer moves: whatever runs it starts it again, and a standby gets the lease."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

LIMIT_S = 300.0  # the longest request to anybody takes a fifth of it
LOOK_S = 5.0
STUCK = 70  # EX_SOFTWARE

log = structlog.get_logger()


def leave() -> None:
    """With every thread's stack on stderr, and no clean-up: nothing that hangs can keep us from it."""
    faulthandler.dump_traceback(sys.__stderr__ or 2)
    os._exit(STUCK)


class Watchdog:
    """Wants a sign of life every ``limit_s``: a round of the loop, or the answer to any request within a long one."""

    def __init__(
        self, limit_s: float = LIMIT_S, *, look_s: float = LOOK_S, end: Callable[[], None] = leave,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._limit_s, self._look_s, self._end, self._clock = limit_s, look_s, end, clock
        self._until = clock() + limit_s
        self._stopped = threading.Event()

    def start(self) -> None:
        """Look from a thread of its own, from now on."""
        self.alive()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Look no longer."""
        self._stopped.set()

    def alive(self, patience_s: float = 0.0) -> None:
        """A sign of life; the next may take ``patience_s`` longer than usual."""
        self._until = self._clock() + self._limit_s + patience_s

    def _watch(self) -> None:
        while not self._stopped.wait(self._look_s):
            if self._clock() > self._until:
                with suppress(Exception):  # a log that cannot be written must not keep it alive
                    log.critical("stuck: stopping for a restart", action="stuck", limit_s=self._limit_s)
                self._end()
                return
