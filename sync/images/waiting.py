"""Images without features in, the next ones to ask for out: by name, and again at growing intervals."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

RETRY_S = 5.0  # an image whose job came to nothing is asked for again after twice this, then four times as long, ...
RETRY_CAP = 8


@dataclass(frozen=True, slots=True)
class _Request:
    """The last job that was queued for an image."""

    job: str
    at: float
    times: int

    @property
    def again_at(self) -> float:
        return self.at + RETRY_S * float(2 ** min(self.times, RETRY_CAP))


class Waiting:
    """Heaps instead of lists that are sorted again: each call costs what it hands out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: set[str] = set()
        self._next: list[str] = []  # a heap; may name images that wait no more
        self._asked: dict[str, _Request] = {}
        self._later: list[tuple[float, str]] = []  # a heap of those that were asked for, by when they are due again

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, uri: object) -> bool:
        return uri in self._waiting

    def put(self, uri: str, *, waits: bool) -> None:
        """Say whether an image lacks features."""
        if not waits:
            self._waiting.discard(uri)
            self._asked.pop(uri, None)
        elif uri not in self._waiting:
            self._waiting.add(uri)
            heapq.heappush(self._next, uri)

    def take(self, count: int, active: Collection[str]) -> list[str]:
        """Up to ``count`` images that are due, by name. ``active``: ids of jobs that wait or run."""
        self._bring_back(active)
        due: list[str] = []
        while self._next and len(due) < count:
            uri = heapq.heappop(self._next)
            if uri in self._waiting and uri not in due[-1:]:  # the same name may lie there twice
                due.append(uri)
        return due

    def asked(self, uris: Sequence[str], job: str) -> None:
        """A job was queued for these."""
        for uri in uris:
            before = self._asked.get(uri)
            self._asked[uri] = asked = _Request(job, self._clock(), before.times + 1 if before else 1)
            heapq.heappush(self._later, (asked.again_at, uri))

    def _bring_back(self, active: Collection[str]) -> None:
        """Those whose job has come to nothing."""
        moment = self._clock()
        while self._later and self._later[0][0] < moment:
            _, uri = heapq.heappop(self._later)
            request = self._asked.get(uri)
            if request is None or uri not in self._waiting or request.again_at > moment:
                continue
            if request.job in active:
                heapq.heappush(self._later, (moment + RETRY_S, uri))
            else:
                heapq.heappush(self._next, uri)
