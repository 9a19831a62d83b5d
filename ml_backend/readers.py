"""A few threads for the images of a project: calls take turns, so that a long one holds up no short one."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Readers(Generic[T]):
    """Like a thread pool, but what waits is taken from each caller in turn, not in the order in which it came."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="read")
        self._lock = threading.Lock()
        self._waiting: OrderedDict[object, deque[tuple[Future[T], Callable[[], T]]]] = OrderedDict()

    def submit(self, caller: object, work: Callable[[], T]) -> Future[T]:
        """``caller``: anything that is one and the same for all of a call's work."""
        future: Future[T] = Future()
        with self._lock:
            self._waiting.setdefault(caller, deque()).append((future, work))
        self._pool.submit(self._next)
        return future

    def stop(self) -> None:
        """Nothing new is begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            waiting, self._waiting = self._waiting, OrderedDict()
        for future, _ in (item for items in waiting.values() for item in items):
            future.cancel()

    def _next(self) -> None:
        item = self._taken()
        if item is None or not item[0].set_running_or_notify_cancel():
            return
        future, work = item
        try:
            future.set_result(work())
        except BaseException as error:  # as a pool does: it is raised where the result is asked for
            future.set_exception(error)

    def _taken(self) -> Any:
        with self._lock:
            if not self._waiting:
                return None
            caller, items = self._waiting.popitem(last=False)
            item = items.popleft()
            if items:
                self._waiting[caller] = items  # behind the others
            return item
