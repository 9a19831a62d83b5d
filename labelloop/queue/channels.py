"""Hints between processes: a process that misses one finds out by polling."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from labelloop.errors import QueueError

NUDGE_CHANNEL = "labelloop:nudge"  # something may have changed in Label Studio, or a job has ended
DEPLOY_CHANNEL = "labelloop:deployed"  # carries a project key: look at its deployment log


def publish(redis: Redis, channel: str, message: Mapping[str, Any] | str) -> None:
    """A hint: a process that misses it finds out by polling."""
    with suppress(RedisError):
        redis.publish(channel, message if isinstance(message, str) else json.dumps(message))


@contextmanager
def translated(what: str) -> Iterator[None]:
    """What Redis raises in the block as a QueueError. ``what``: what could not be done."""
    try:
        yield
    except RedisError as error:
        raise QueueError(f"cannot {what}: {error}; is Redis up, and LABELLOOP_REDIS_URL right?") from error
