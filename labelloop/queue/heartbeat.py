"""Which processes live, with a few facts about each."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from labelloop.clock import now
from labelloop.code import code_version
from labelloop.queue.channels import translated

ALIVE = "labelloop:alive:"  # one key per process, gone soon after the process
ALIVE_TTL_S = 8


class Heartbeat:
    """Says every two seconds that this process lives, with a few facts about it."""

    def __init__(self, redis: Redis, name: str, facts: Mapping[str, Any] | None = None) -> None:
        self._redis, self._name, self._stop = redis, name, threading.Event()
        self.facts: dict[str, Any] = {"since": now(), "code": code_version(), **(facts or {})}

    def start(self) -> None:
        """Beat from a thread of its own, so that long work does not silence it."""
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def say(self, **facts: Any) -> None:
        """Change facts, and let everybody know at once."""
        self.facts = {**self.facts, **facts}
        self._beat()

    def stop(self) -> None:
        """Say goodbye: the key goes at once."""
        self._stop.set()
        with suppress(RedisError):
            self._redis.delete(ALIVE + self._name)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._beat()
            self._stop.wait(2)

    def _beat(self) -> None:
        with suppress(RedisError):
            self._redis.set(ALIVE + self._name, json.dumps({**self.facts, "at": now()}), ex=ALIVE_TTL_S)


def alive(redis: Redis) -> dict[str, dict[str, Any]]:
    """Every process that lives, by name, with its facts."""
    with translated("read the heartbeats"):
        keys = sorted(redis.scan_iter(f"{ALIVE}*"))
        values = redis.mget(keys) if keys else []
    return {k.decode().removeprefix(ALIVE): json.loads(v) for k, v in zip(keys, values, strict=True) if v}
