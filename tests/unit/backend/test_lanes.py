"""Requests that wait for a thread of their lane."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ml_backend.entrance.door import Lane, Refusal
from ml_backend.entrance.lanes import PATIENCE_S, Lanes

ONE, TWO = Lane("one", threads=1, waiting=1), Lane("two", threads=1, waiting=1)


class Channel:
    """A channel with one request, answered once it may go on."""

    def __init__(self, lane: Lane, goes_on: threading.Event | None = None) -> None:
        self.lane, self.error, self.requests = lane, None, [self]
        self._goes_on, self.answer, self.queued_at = goes_on, "", 0.0
        self.begun = threading.Event()

    def refuse(self, why: Refusal) -> None:
        self.error = why  # type: ignore[assignment]

    def service(self) -> None:
        self.begun.set()
        if self._goes_on and not self.error:
            self._goes_on.wait(10)
        self.answer = str(self.error.status) if self.error else "200"

    def cancel(self) -> None:
        self.answer = "cancelled"


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    both = Lanes([ONE, TWO])
    yield both
    both.shutdown()


def wait(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_full_lane_refuses_at_once_and_the_others_go_on(lanes: Lanes) -> None:
    goes_on = threading.Event()
    inside, waiting, more, other = Channel(ONE, goes_on), Channel(ONE), Channel(ONE), Channel(TWO)
    lanes.add_task(inside)
    assert inside.begun.wait(5)
    for channel in (waiting, more, other):
        lanes.add_task(channel)
    wait(lambda: (more.answer, other.answer) == ("503", "200"))
    assert waiting.answer == ""
    goes_on.set()
    wait(lambda: (inside.answer, waiting.answer) == ("200", "200"))


def test_who_has_waited_too_long_for_a_thread_is_refused_without_one(lanes: Lanes) -> None:
    goes_on = threading.Event()
    inside, waiting = Channel(ONE, goes_on), Channel(ONE)
    lanes.add_task(inside)
    assert inside.begun.wait(5)
    lanes.add_task(waiting)
    lanes.expire()
    assert waiting.answer == ""
    time.sleep(PATIENCE_S + 0.05)
    lanes.expire()
    wait(lambda: waiting.answer == "503")
    goes_on.set()


def test_who_waits_beside_a_free_thread_is_not_refused_however_slow_the_machine_is(lanes: Lanes) -> None:
    line, channel = lanes._lines["one"], Channel(ONE)
    wait(lambda: line.active_count == 0)
    with line.lock:  # it is told, and does not come to run
        line.queue.append(channel)
        channel.queued_at = time.monotonic() - 10
    lanes.expire()
    assert channel.error is None
    with line.lock:
        line.queue_cv.notify()
    wait(lambda: channel.answer == "200")
