"""Redis as the backend uses it: hints in, nudges and a heartbeat out. All of it may be away at any time."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from redis import Redis
from redis.exceptions import RedisError

from labelloop.queue.channels import DEPLOY_CHANNEL, NUDGE_CHANNEL, publish
from labelloop.queue.heartbeat import Heartbeat

WAITING_NUDGES = 64
PAUSE_S = 1.0

log = structlog.get_logger()


class Hints:
    """Three threads beside the requests; none of them can hold one up."""

    def __init__(self, redis: Redis, on_deploy: Callable[[], None], facts: Callable[[], Mapping[str, Any]]) -> None:
        self._redis, self._on_deploy = redis, on_deploy
        self._nudges: queue.Queue[dict[str, Any]] = queue.Queue(WAITING_NUDGES)
        self._stop = threading.Event()
        name = f"backend:{socket.gethostname()}:{os.getpid()}"
        self._facts = facts
        self._heart = Heartbeat(redis, name, {"pid": os.getpid(), "projects": {}})

    def start(self) -> None:
        """Listen, send and beat from now on."""
        self._report()
        self._heart.start()
        for target in (self._listen, self._send):
            threading.Thread(target=target, name=target.__name__.strip("_"), daemon=True).start()

    def stop(self) -> None:
        """Say goodbye."""
        self._stop.set()
        self._heart.stop()

    def nudge(self, project: int | str | None, action: str) -> bool:
        """Tell the watcher that something may have changed; never waits. False where the line is full."""
        try:
            self._nudges.put_nowait({"project": project, "action": action})
            return True
        except queue.Full:  # the watcher polls anyhow
            return False

    def _send(self) -> None:
        while not self._stop.is_set():
            try:
                message = self._nudges.get(timeout=PAUSE_S)
            except queue.Empty:
                self._report()
                continue
            publish(self._redis, NUDGE_CHANNEL, message)

    def _report(self) -> None:
        self._heart.facts = {**self._heart.facts, "projects": dict(self._facts())}  # replaced whole: it is read beside

    def _listen(self) -> None:
        away = False
        while not self._stop.is_set():
            try:
                self._listen_once()
                away = False
            except RedisError as error:
                if not away:  # once per outage
                    log.warning("no hints, polling instead", action="hints", reason=str(error))
                away = True
                self._stop.wait(PAUSE_S)

    def _listen_once(self) -> None:
        with self._redis.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(DEPLOY_CHANNEL)
            while not self._stop.is_set():
                if channel.get_message(timeout=PAUSE_S):
                    self._on_deploy()
