"""How many requests a key may make: a token bucket each, in this process's memory.

No Redis: where it is away, limits hold all the same. Each process limits what comes to it; the front door is one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from labelloop.records.api_keys import ApiKey

BURST_S = 10.0  # so many seconds' requests may come at once
MOST = 4096  # buckets; full ones are forgotten


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Rates:
    """Safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def wait_s(self, key: ApiKey) -> int:
        """0 where the key may ask now, which is counted; else the seconds after which it may."""
        per_s = key.per_minute / 60
        most = max(1.0, per_s * BURST_S)
        with self._lock:
            at = self._clock()
            bucket = self._buckets.setdefault(key.id, _Bucket(most, at))
            bucket.tokens = min(most, bucket.tokens + (at - bucket.at) * per_s)
            bucket.at = at
            if bucket.tokens < 1:
                return max(1, math.ceil((1 - bucket.tokens) / per_s))
            bucket.tokens -= 1
            self._forget(at)
        return 0

    def _forget(self, at: float) -> None:
        """Keys come and go: who has not asked for a while has a full bucket again."""
        if len(self._buckets) > MOST:
            self._buckets = {name: b for name, b in self._buckets.items() if at - b.at < 60 + BURST_S}
