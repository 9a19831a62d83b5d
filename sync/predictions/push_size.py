"""How long pushes into Label Studio took in; how large the next may be, and when, out."""

from __future__ import annotations

import time
from collections.abc import Callable

TARGET_S = 0.3  # people who ask for their next task wait as long as a push takes
REST = 4.0  # times as long as a push took, nothing is pushed: most of the time belongs to people
MOST_REST_S = 300.0


class PushSize:
    """What one server bears, by what it did with the pushes so far."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._each_s: float | None = None  # a prediction
        self._rests_until = float("-inf")

    def took(self, count: int, seconds: float) -> None:
        """A push of ``count`` predictions has ended. The last ones count most: servers grow and get busy."""
        each = seconds / max(count, 1)
        self._each_s = each if self._each_s is None else (self._each_s + each) / 2
        self._rests_until = self._clock() + min(REST * seconds, MOST_REST_S)

    def size(self, first: int, most: int) -> int:
        """Predictions of the next push: ``first`` at least, for a slow server minds how often, not how many."""
        if self._each_s is None:
            return min(first, most)
        return min(most, max(first, int(TARGET_S / max(self._each_s, 1e-9))))

    @property
    def rests(self) -> bool:
        """True while the server should be left to people."""
        return self._clock() < self._rests_until
