from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future

import pytest

from ml_backend.readers import Readers


def test_a_short_call_waits_for_one_image_of_a_long_one_not_for_all() -> None:
    readers: Readers[int] = Readers(1)
    order: list[str] = []
    gate = threading.Event()

    def work(name: str) -> int:
        gate.wait(10)
        order.append(name)
        return len(order)

    long = [readers.submit("long", lambda: work("long")) for _ in range(20)]
    short = [readers.submit("short", lambda: work("short")) for _ in range(2)]
    gate.set()
    assert [f.result(10) for f in short] == [3, 5]
    assert all(f.result(10) for f in long)
    assert len(order) == 22
    readers.stop()


def test_an_exception_is_raised_where_the_result_is_asked_for() -> None:
    readers: Readers[float] = Readers(2)
    with pytest.raises(ZeroDivisionError):
        readers.submit("a", lambda: 1 / 0).result(10)
    readers.stop()


def test_what_has_not_begun_when_it_stops_is_cancelled_and_nobody_waits_for_ever() -> None:
    readers: Readers[bool] = Readers(1)
    begun, gate = threading.Event(), threading.Event()

    def work() -> bool:
        begun.set()
        return gate.wait(10)

    running = readers.submit("a", work)
    waiting: list[Future[bool]] = [readers.submit("b", work) for _ in range(3)]
    assert begun.wait(10)
    readers.stop()
    gate.set()
    assert running.result(10)
    for future in waiting:
        with pytest.raises(CancelledError):
            future.result(10)
