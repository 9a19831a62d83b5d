"""Images that are too large to be decoded beside others: a few at once, of a few calls at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from labelloop.errors import DecodersBusyError
from ml_backend.places import PLACES

IMAGES = 3  # that calls hold at once: those being decoded, and one that is read meanwhile
CALLS = PLACES - 3  # that wait for them: the other places of a project are for calls that are answered at once
CALL_S = 40.0  # for all large images of one call together


class LargeCall:
    """The large images of one call, one after the other."""

    def __init__(self, calls: threading.Semaphore, images: threading.Semaphore) -> None:
        self.until = time.monotonic() + CALL_S
        self._calls, self._images = calls, images
        self._admitted = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        """For one image; DecodersBusyError where it is not admitted, or when the call's time is over."""
        self.admit()
        if not self._images.acquire(timeout=max(self.until - time.monotonic(), 0)):
            raise DecodersBusyError("other large images took all the time; ask again soon")
        try:
            yield
        finally:
            self._images.release()

    def admit(self) -> None:
        """Once for all its images; DecodersBusyError where enough calls wait already."""
        self._admitted = self._admitted or self._calls.acquire(blocking=False)
        if not self._admitted:
            raise DecodersBusyError(f"{CALLS} calls wait for large images already; ask again soon")

    def end(self) -> None:
        """Leave the wait to another call."""
        if self._admitted:
            self._calls.release()


class Large:
    """Counts them for all calls of a process. A call that is not admitted still gets its small images answered."""

    def __init__(self, images: int = IMAGES, calls: int = CALLS) -> None:
        self._images, self._calls = threading.Semaphore(images), threading.Semaphore(calls)

    @contextmanager
    def call(self) -> Iterator[LargeCall]:
        """For one call, from its first large image to its end."""
        call = LargeCall(self._calls, self._images)
        try:
            yield call
        finally:
            call.end()
