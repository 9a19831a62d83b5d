"""The loop over all projects: one watcher at a time, nudged or by the clock, each project in its turn."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog
from redis import Redis
from redis.exceptions import RedisError

from labelloop.errors import LabelloopError
from labelloop.projects import ProjectRecord, ProjectStore
from labelloop.queue import NUDGE_CHANNEL, Heartbeat, HeldLease, JobQueue, publish
from sync.project import Deps, ProjectWatch

POLL_S = 1.0
BURST_S = (0.0, 0.03, 0.08, 0.2, 0.5)  # after a nudge: the annotation's transaction may not have committed yet
PROJECTS_EVERY_S = 2.0
BACKOFF_CAP_S = 15.0
DRAINED_CHANNEL = "labelloop:drained:"

log = structlog.get_logger()


class Nudges:
    """Hints from Redis, collected by a thread of its own; missing one costs a poll interval, nothing more."""

    def __init__(self, redis: Redis) -> None:
        self._redis, self._event = redis, threading.Event()
        self._drains: list[dict[str, Any]] = []

    def start(self) -> None:
        """Listen until the process ends."""
        threading.Thread(target=self._listen, name="nudges", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Sleep, or less where a hint comes; True where one came."""
        came = self._event.wait(seconds)
        self._event.clear()
        return came

    def wake(self) -> None:
        """Give a hint from inside the process."""
        self._event.set()

    def drains(self) -> list[dict[str, Any]]:
        """Requests to drain that came since the last call."""
        found, self._drains = self._drains, []
        return found

    def _listen(self) -> None:
        while True:
            with suppress(RedisError, OSError):
                channel = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
                channel.subscribe(NUDGE_CHANNEL)
                self._event.set()  # what came while nobody listened
                while True:
                    message = channel.get_message(timeout=5)
                    if message:
                        self._take(message["data"])
            time.sleep(0.5)

    def _take(self, data: bytes) -> None:
        with suppress(ValueError):
            message = json.loads(data)
            if isinstance(message, dict) and message.get("action") == "drain":
                self._drains.append(message)
        self._event.set()


@dataclass
class _Backoff:
    """How long a project that fails is left alone; the others go on."""

    until: float = 0.0
    failures: int = 0
    reason: str = ""

    def failed(self, reason: str) -> None:
        self.failures += 1
        self.until = time.monotonic() + min(0.5 * 2**self.failures, BACKOFF_CAP_S)
        self.reason = reason

    def succeeded(self) -> None:
        self.failures, self.reason, self.until = 0, "", 0.0


@dataclass
class _Watched:
    record: ProjectRecord
    watch: ProjectWatch
    backoff: _Backoff = field(default_factory=_Backoff)


class Watcher:
    """Runs until stopped. Holds the lease; a second watcher waits until it is free."""

    def __init__(self, projects: ProjectStore, deps: Deps, *, heartbeat: Heartbeat, lease: HeldLease) -> None:
        self._projects, self._deps, self._heartbeat, self._lease = projects, deps, heartbeat, lease
        self._watched: dict[str, _Watched] = {}
        self._listed_at = float("-inf")
        self.nudges = Nudges(deps.queue.redis)
        self.stopping = threading.Event()

    def run(self) -> None:
        """The loop; returns after `stop`."""
        self.nudges.start()
        self._heartbeat.start()
        burst: list[float] = []
        nudged = True
        while not self.stopping.is_set():
            if not self._leads():
                self.stopping.wait(1)
                continue
            changed = self._round(nudged=nudged)
            nudged = self.nudges.wait(burst.pop(0) if burst and not changed else POLL_S)
            if nudged:
                burst = list(BURST_S)
        self._lease.release()
        self._heartbeat.stop()

    def stop(self) -> None:
        """Finish the turn and leave."""
        self.stopping.set()
        self.nudges.wake()

    def _leads(self) -> bool:
        try:
            leads = self._lease.hold()
        except LabelloopError as error:
            log.warning("waiting for redis", action="lease", reason=str(error))
            return False
        self._heartbeat.facts["leads"] = leads
        return leads

    def _round(self, *, nudged: bool) -> bool:
        self._guard("the list of projects", self._list)
        changed = False
        for drain in self.nudges.drains():
            self._drain(drain)
        for item in list(self._watched.values()):
            if time.monotonic() >= item.backoff.until:
                changed = self._turn(item, nudged=nudged) or changed
        self._guard("the queue", self._reap)
        self._heartbeat.facts["projects"] = {k: self._facts(w) for k, w in self._watched.items()}
        return changed

    def _turn(self, item: _Watched, *, nudged: bool) -> bool:
        try:
            changed = item.watch.turn(nudged=nudged)
            item.backoff.succeeded()
            return changed
        except LabelloopError as error:
            item.backoff.failed(str(error))
            log.error("turn failed", action="turn", project=item.record.key, reason=str(error))
        except Exception as error:  # the edge: one project's surprise must not stop the others
            item.backoff.failed(f"{type(error).__name__}: {error}")
            log.exception("turn failed unexpectedly", action="turn", project=item.record.key)
            self._watched[item.record.key] = _Watched(item.record, ProjectWatch(item.record, self._deps), item.backoff)
        return False

    def _list(self) -> None:
        if time.monotonic() - self._listed_at < PROJECTS_EVERY_S:
            return
        self._listed_at = time.monotonic()
        records = {r.key: r for r in self._projects.all()}
        for key in set(self._watched) - set(records):
            del self._watched[key]
        for key, record in records.items():
            known = self._watched.get(key)
            if known is None or known.record != record:
                self._watched[key] = _Watched(record, ProjectWatch(record, self._deps))

    def _drain(self, message: dict[str, Any]) -> None:
        item = self._watched.get(str(message.get("project")))
        if item is None:
            return
        try:
            latest = item.watch.drain()
            answer: dict[str, Any] = {"snapshot": latest.snapshot, "annotations": latest.annotations}
        except LabelloopError as error:
            answer = {"error": str(error)}
        publish(self._deps.queue.redis, f"{DRAINED_CHANNEL}{message.get('id')}", answer)

    def _reap(self) -> None:
        for job in self._deps.queue.reap():
            log.warning("job abandoned by its worker", action="reap", job=job)
            self.nudges.wake()

    def _guard(self, what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except LabelloopError as error:
            log.error(f"cannot look at {what}", action="round", reason=str(error))

    def _facts(self, item: _Watched) -> dict[str, Any]:
        facts = item.watch.facts()
        return {**facts, "problem": item.backoff.reason or facts["problem"]}


def make_watcher(projects: ProjectStore, deps: Deps, queue: JobQueue, name: str) -> Watcher:
    """A watcher with its heartbeat and lease."""
    return Watcher(
        projects, deps, heartbeat=Heartbeat(queue.redis, f"sync:{name}"), lease=HeldLease(queue.redis, "watcher")
    )
