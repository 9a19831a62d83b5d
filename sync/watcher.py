"""The loop over all projects: one watcher at a time, nudged or by the clock, each project in its turn."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from redis import Redis
from redis.exceptions import RedisError

from labelloop.errors import LabelConfigError, LabelloopError
from labelloop.queue.channels import NUDGE_CHANNEL, publish
from labelloop.queue.heartbeat import Heartbeat
from labelloop.queue.leases import HeldLease
from labelloop.records.tasks import Task
from labelloop.store.projects import ProjectRecord
from sync.metrics import SyncMetrics, moves_between
from sync.project import Deps, ProjectWatch
from sync.watchdog import Watchdog

POLL_S = 1.0
QUIET_POLL_S = 3.0  # of a project that nobody has worked on for a while; a hint still wakes it at once
QUIET_AFTER_S = 60.0
RENEW_S = 3.0
REST_SHARE = 2.0  # of a turn's length; in a stream of hints
REST_CAP_S = 1.5
BURST_S = (0.0, 0.03, 0.08, 0.2, 0.5)  # after a nudge: the annotation's transaction may not have committed yet
PROJECTS_EVERY_S = 2.0
HEAL_EVERY_S = 600.0
MEASURE_EVERY_S = 5.0
BACKOFF_CAP_S = 15.0
DRAINED_CHANNEL = "labelloop:drained:"

log = structlog.get_logger()


class Nudges:
    """Hints from Redis, collected by a thread of its own; missing one costs a poll interval, nothing more."""

    def __init__(self, redis: Redis) -> None:
        self._redis, self._event = redis, threading.Event()
        self._messages: list[dict[str, Any]] = []

    def start(self) -> None:
        """Listen until the process ends."""
        threading.Thread(target=self._listen, name="nudges", daemon=True).start()

    def wait(self, seconds: float) -> None:
        """Sleep, or less where a hint comes."""
        self._event.wait(seconds)
        self._event.clear()

    def wake(self) -> None:
        """Give a hint, about everything, from inside the process."""
        self._messages.append({})
        self._event.set()

    def take(self) -> list[dict[str, Any]]:
        """The hints that came since the last call."""
        messages, self._messages = self._messages, []
        return messages

    def _listen(self) -> None:
        while True:
            with suppress(RedisError, OSError):
                channel = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
                channel.subscribe(NUDGE_CHANNEL)
                self.wake()  # what came while nobody listened
                while True:
                    message = channel.get_message(timeout=5)
                    if message:
                        self._take(message["data"])
            time.sleep(0.5)

    def _take(self, data: bytes) -> None:
        with suppress(ValueError):
            message = json.loads(data)
            self._messages.append(message if isinstance(message, dict) else {})
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
    due: float = 0.0  # monotonic
    burst: list[float] = field(default_factory=list)
    changed_at: float = field(default_factory=time.monotonic)
    counted: dict[int, Task] | None = None  # the annotations that the figures know of
    nudged: bool = False  # by a hint that no turn has followed yet
    rests_until: float = 0.0

    @property
    def next_turn(self) -> float:
        """When it may be looked at again (monotonic)."""
        return max(0.0 if self.nudged else self.due, self.rests_until, self.backoff.until)

    def meant(self, hint: dict[str, Any]) -> bool:
        """Whether a hint is about this project; one that names none is about all."""
        return hint.get("project") in (None, "", self.record.id, self.record.key, self.record.reference)

    def nudge(self) -> None:
        """A hint came: look at once, and again until what it told of is seen."""
        self.nudged, self.burst = True, list(BURST_S)

    def turned(self, *, changed: bool, took_s: float) -> None:
        """Plan the next turn: soon after a hint that found nothing yet, seldom where nobody works.

        Label Studio has one core for everybody: in a stream of hints we rest twice as long as we have asked.
        """
        moment = time.monotonic()
        self.nudged, self.rests_until = False, moment + min(REST_SHARE * took_s, REST_CAP_S)
        if changed:
            self.changed_at, self.burst = moment, []
        quiet = moment - self.changed_at > QUIET_AFTER_S
        self.due = moment + (self.burst.pop(0) if self.burst else QUIET_POLL_S if quiet else POLL_S)


class Watcher:
    """Runs until stopped. Holds the lease; a second watcher waits until it is free."""

    def __init__(
        self, deps: Deps, *, heartbeat: Heartbeat, lease: HeldLease, metrics: SyncMetrics | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:  # fmt: skip
        self._deps, self._heartbeat, self._lease = deps, heartbeat, lease
        self._metrics = metrics or SyncMetrics()
        self._measured_at = float("-inf")
        self._watched: dict[str, _Watched] = {}
        self._unserved: dict[str, dict[str, Any]] = {}  # projects whose kept label config cannot be served: their facts
        self._listed_at = self._healed_at = float("-inf")
        self.nudges = Nudges(deps.queue.redis)
        self.stopping = threading.Event()
        self._watchdog = watchdog or Watchdog()

    def run(self) -> None:
        """The loop; returns after `stop`."""
        self.nudges.start()
        self._heartbeat.start()
        threading.Thread(target=self._renew, name="lease", daemon=True).start()
        self._watchdog.start()
        while not self.stopping.is_set():
            self._watchdog.alive()
            if self._leads():
                self._round(self.nudges.take())
                self.nudges.wait(self._pause())
            else:
                self._watched.clear()  # what another watcher does meanwhile makes all of it old
                self._metrics.saw({})
                self.nudges.take()
                self.stopping.wait(1)
        self._watchdog.stop()
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
            self._metrics.leader.set(0)
            return False
        self._heartbeat.facts["leads"] = leads
        self._metrics.leader.set(leads)
        return leads

    def _renew(self) -> None:
        """A long turn must not lose the lease to a standby."""
        while not self.stopping.wait(RENEW_S):
            if self._heartbeat.facts.get("leads"):
                self._leads()

    def _pause(self) -> float:
        soonest = min((w.next_turn for w in self._watched.values()), default=float("inf"))
        return min(max(soonest - time.monotonic(), 0), POLL_S)

    def _round(self, hints: list[dict[str, Any]]) -> None:
        self._guard("the list of projects", self._list)
        for hint in hints:
            if hint.get("action") == "drain":
                self._drain(hint)
        self._turns(hints)
        self._guard("the queue", self._reap)
        self._heartbeat.facts["projects"] = {k: self._facts(w) for k, w in self._watched.items()} | self._unserved
        self._guard("the figures", self._measure)

    def _turns(self, hints: list[dict[str, Any]]) -> None:
        """Projects that somebody works on come first, the others when they are due."""
        for item in self._watched.values():
            if any(item.meant(hint) for hint in hints):
                item.nudge()
        for key in sorted(self._watched, key=lambda k: not self._watched[k].nudged):
            item = self._watched[key]
            began = time.monotonic()
            if began >= item.next_turn:
                changed = self._turn(item, nudged=item.nudged)
                item.turned(changed=changed, took_s=time.monotonic() - began)

    def _turn(self, item: _Watched, *, nudged: bool) -> bool:
        with structlog.contextvars.bound_contextvars(project=item.record.key):
            return self._guarded_turn(item, nudged=nudged)

    def _guarded_turn(self, item: _Watched, *, nudged: bool) -> bool:
        began = time.monotonic()
        try:
            changed = item.watch.turn(nudged=nudged)
            item.backoff.succeeded()
            self._count(item, changed=changed, took_s=time.monotonic() - began)
            return changed
        except LabelloopError as error:
            item.backoff.failed(str(error))
            log.error("turn failed", action="turn", project=item.record.key, reason=str(error))
            self._metrics.failed.labels(item.record.key).inc()
        except Exception as error:  # the edge: one project's surprise must not stop the others
            item.backoff.failed(f"{type(error).__name__}: {error}")
            log.exception("turn failed unexpectedly", action="turn", project=item.record.key)
            self._metrics.failed.labels(item.record.key).inc()
            self._watched[item.record.key] = _Watched(item.record, ProjectWatch(item.record, self._deps), item.backoff)
        return False

    def _count(self, item: _Watched, *, changed: bool, took_s: float) -> None:
        """Figures of a look that ended well."""
        self._metrics.turns.labels(str(changed).lower()).observe(took_s)
        self._metrics.looked.labels(item.record.key).set_to_current_time()
        if self._metrics.exposed and (changed or item.counted is None):
            if item.counted is not None:
                self._metrics.moved(item.record.key, list(moves_between(item.counted, item.watch.feed.tasks)))
            item.counted = dict(item.watch.feed.tasks)

    def _measure(self) -> None:
        self._metrics.saw(self._heartbeat.facts["projects"])
        if self._metrics.exposed and time.monotonic() - self._measured_at > MEASURE_EVERY_S:
            self._measured_at = time.monotonic()
            self._metrics.queues(self._deps.queue.depths(), self._deps.queue.jobs())

    def _list(self) -> None:
        if time.monotonic() - self._listed_at < PROJECTS_EVERY_S:
            return
        self._listed_at = time.monotonic()
        records = {r.key: r for r in self._deps.projects.all()}
        unread = {d.project: d.reason for d in self._deps.projects.unread()}
        for key in set(self._watched) - set(records) - set(unread):
            del self._watched[key]
        self._unserved = {key: facts for key, facts in self._unserved.items() if key in records}
        for key, record in records.items():
            watched = self._watched.get(key)
            if watched is None or replace(watched.record, title=record.title) != record:
                self._watch(record)
            elif watched.record != record:
                watched.record = record
                watched.watch.rename(record.title)
        self._heal([*records.values(), *(w.record for key, w in self._watched.items() if key in unread)])

    def _watch(self, record: ProjectRecord) -> None:
        """Look after a project from now on. One that cannot be served, e.g. for its label config, stops no other."""
        try:
            self._watched[record.key] = _Watched(record, ProjectWatch(record, self._deps))
            self._unserved.pop(record.key, None)
        except LabelloopError as error:
            self._watched.pop(record.key, None)
            where = (
                "Correct it under Settings > Labeling Interface, then " if isinstance(error, LabelConfigError) else ""
            )
            problem = f"{error}. {where}`labelloop init --project {record.id}`"
            if record.key not in self._unserved:
                log.error("project cannot be served", action="list", project=record.key, reason=problem)
            self._unserved[record.key] = {"title": record.title, "problem": problem}

    def _heal(self, records: Iterable[ProjectRecord]) -> None:
        """Damaged records, from what is known of them; copies that are missing, now and then."""
        all_of_them = time.monotonic() - self._healed_at > HEAL_EVERY_S
        if all_of_them:
            self._healed_at = time.monotonic()
        damaged = {d.project for d in self._deps.projects.damaged()}
        for record in records:
            if all_of_them or record.key in damaged:
                self._deps.projects.heal(record)

    def _drain(self, message: dict[str, Any]) -> None:
        item = self._watched.get(str(message.get("project")))
        answer: dict[str, Any] = {"error": f"the watcher does not know {message.get('project')} yet; try again"}
        try:
            if item is not None:
                latest = item.watch.drain()
                answer = {"snapshot": latest.snapshot, "annotations": latest.annotations}
        except Exception as error:  # the caller must hear of it, and the watcher must go on
            log.exception("drain failed", action="drain", project=message.get("project"))
            answer = {"error": str(error) or type(error).__name__}
        publish(self._deps.queue.redis, f"{DRAINED_CHANNEL}{message.get('id')}", answer)

    def _reap(self) -> None:
        for job in self._deps.queue.reap():
            log.warning("job abandoned by its worker", action="reap", job=job)
            self.nudges.wake()

    def _guard(self, what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except LabelloopError as error:
            log.error(f"cannot read {what}", action="round", reason=str(error))

    def _facts(self, item: _Watched) -> dict[str, Any]:
        facts = item.watch.facts()
        return {**facts, "problem": item.backoff.reason or facts["problem"]}


def make_watcher(
    deps: Deps, name: str, *, metrics: SyncMetrics | None = None, facts: Mapping[str, Any] | None = None,
    watchdog: Watchdog | None = None,
) -> Watcher:  # fmt: skip
    """A watcher with its heartbeat and lease. ``facts``: what the heartbeat tells of it from the start."""
    redis = deps.queue.redis
    heartbeat = Heartbeat(redis, f"sync:{name}", facts)
    return Watcher(deps, heartbeat=heartbeat, lease=HeldLease(redis, "watcher"), metrics=metrics, watchdog=watchdog)
