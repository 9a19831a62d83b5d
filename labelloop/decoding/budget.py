"""Bytes that a process may hold in images at once: taken before a decoder begins, given back when it has ended."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from labelloop.errors import DecodersBusyError


class Budget:
    """One for all threads. ``large`` of ``total`` is the most for images above ``small``: these never fill it all.

    Small ones pass those that wait for much; large ones take turns, so that the largest gets its own in the end.
    """

    def __init__(self, total: int, *, large: int, small: int) -> None:
        self.large, self.small = large, small
        self._total = total
        self._held = self._held_large = 0
        self._queue: deque[object] = deque()  # large ones, in the order in which they came
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, amount: int, wait_s: float) -> Iterator[None]:
        """DecodersBusyError where it is not free in time; ValueError for what never will be."""
        if amount > self.large:
            raise ValueError(f"{amount:,} bytes are above the limit of {self.large:,}")
        large = amount if amount > self.small else 0
        self._take(amount, large, wait_s)
        try:
            yield
        finally:
            with self._changed:
                self._held -= amount
                self._held_large -= large
                self._changed.notify_all()

    def _take(self, amount: int, large: int, wait_s: float) -> None:
        ticket = object()
        with self._changed:
            if large:
                self._queue.append(ticket)
            try:
                if not self._changed.wait_for(lambda: self._free(amount, large, ticket), wait_s):
                    raise DecodersBusyError(
                        f"the decoders were busy with other large images for {wait_s:.0f} s; try again later"
                    )
                self._held += amount
                self._held_large += large
            finally:
                if large:
                    self._queue.remove(ticket)
                    self._changed.notify_all()

    def _free(self, amount: int, large: int, ticket: object) -> bool:
        if self._held + amount > self._total:
            return False
        return not large or (self._held_large + large <= self.large and self._queue[0] is ticket)
