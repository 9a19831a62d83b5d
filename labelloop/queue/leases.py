"""Mutual exclusion by Redis: for one block, or for as long as a process lives."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from redis import Redis
from redis.exceptions import RedisError

from labelloop.errors import LeaseLostError
from labelloop.queue.channels import translated


class RedisLease:
    """Named mutual exclusion with a fencing number. Redis is the arbiter, the numbered log the truth."""

    def __init__(self, redis: Redis, scope: str, *, ttl_s: float = 30, wait_s: float = 20) -> None:
        self._redis, self._scope, self._ttl, self._wait = redis, scope, ttl_s, wait_s

    @contextmanager
    def __call__(self, name: str) -> Iterator[int]:
        """Hold the lease for the block; LeaseLostError where it cannot be had in time."""
        key = f"labelloop:lease:{self._scope}:{name}"
        with translated(f"take the lease {name}"):
            lock = self._redis.lock(key, timeout=self._ttl, blocking_timeout=self._wait, thread_local=False)
            if not lock.acquire():
                raise LeaseLostError(f"somebody else has held the lease {key} for {self._wait:.0f} s; try again")
            fencing = int(self._redis.incr(f"{key}:fencing"))
        try:
            yield fencing
        finally:
            with suppress(RedisError):  # ran out, or Redis is gone: it frees itself
                lock.release()


class HeldLease:
    """A lease kept for long by one process, renewed as it goes: one watcher at a time."""

    def __init__(self, redis: Redis, name: str, *, ttl_s: int = 10) -> None:
        self._redis, self._key, self._ttl = redis, f"labelloop:lease:{name}", ttl_s
        self._token = secrets.token_hex(8).encode()

    def hold(self) -> bool:
        """Take or renew; False where somebody else has it."""
        with translated("hold the watcher's lease"):
            if self._redis.set(self._key, self._token, nx=True, ex=self._ttl):
                return True
            if self._redis.get(self._key) == self._token:
                return bool(self._redis.expire(self._key, self._ttl))
        return False

    def release(self) -> None:
        """Give it up, so that the next one need not wait for it to run out."""
        with suppress(RedisError):
            if self._redis.get(self._key) == self._token:
                self._redis.delete(self._key)
