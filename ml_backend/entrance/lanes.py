"""Whole requests in, answered by threads of their own kind: no kind can take another's threads."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

from waitress.task import ThreadedTaskDispatcher  # type: ignore[import-untyped]

from ml_backend.entrance.door import BUSY, VIEWS, Lane

PATIENCE_S = 0.5  # in the line of a lane
REFUSALS = Lane("refusals", threads=2, waiting=1_000_000)  # an answer that is ready; never refused itself
logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a line per waiting request would be a flood


class Line(ThreadedTaskDispatcher):  # type: ignore[misc]
    """One lane's threads, and the channels that wait for one."""

    def __init__(self, lane: Lane) -> None:
        super().__init__()
        self._lane = lane
        self.set_thread_count(lane.threads)

    def takes(self, channel: Any) -> bool:
        """False where too many wait already."""
        with self.lock:
            idle = len(self.threads) - self.active_count
            if len(self.queue) - idle >= self._lane.waiting:
                return False
        self.add_task(channel)
        return True

    def overdue(self) -> list[Any]:
        """Channels that have waited too long for a thread to be free; they wait no more."""
        latest, expired = time.monotonic() - PATIENCE_S, []
        with self.lock:
            while self.active_count >= len(self.threads) and self.queue and self.queue[0].queued_at < latest:
                expired.append(self.queue.popleft())
        return expired


class Lanes:
    """What waitress hands its requests to."""

    def __init__(self, lanes: Iterable[Lane]) -> None:
        self._lines = {lane.name: Line(lane) for lane in (*lanes, REFUSALS)}

    def add_task(self, channel: Any) -> None:
        """Answer the channel's first request: in its lane, or with a refusal."""
        request, channel.queued_at = channel.requests[0], time.monotonic()
        if request.error:
            self._lines[REFUSALS.name].add_task(channel)
        elif not self._lines[(request.lane or VIEWS).name].takes(channel):
            self._refuse(channel)

    def expire(self) -> None:
        """Refuse what has waited too long."""
        for line in self._lines.values():
            for channel in line.overdue():
                self._refuse(channel)

    def shutdown(self) -> None:
        """Let all threads go; those that are in a request are daemons and end with the process."""
        for line in self._lines.values():
            line.shutdown(timeout=0.2)

    def _refuse(self, channel: Any) -> None:
        channel.requests[0].refuse(BUSY)
        self._lines[REFUSALS.name].add_task(channel)
