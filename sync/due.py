"""What is done by the clock: not more often than every so many seconds."""

from __future__ import annotations

import time


class Due:
    """Names of chores, and when each was done last."""

    def __init__(self) -> None:
        self._done_at: dict[str, float] = {}

    def now(self, chore: str, every_s: float) -> bool:
        """Whether it is due; the next one is ``every_s`` from now."""
        moment = time.monotonic()
        if moment - self._done_at.get(chore, float("-inf")) < every_s:
            return False
        self._done_at[chore] = moment
        return True

    def done(self, chore: str) -> None:
        """It was done just now."""
        self._done_at[chore] = time.monotonic()

    def clear(self) -> None:
        """Everything is due."""
        self._done_at.clear()
