"""What Prometheus sees of the watcher, gathered from its facts and its log. docs/metrics.md explains each."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from labelloop.clock import age_s
from labelloop.code import code_version
from labelloop.queue.jobs import KINDS, JobState
from labelloop.records.tasks import Annotation, Task
from labelloop.web.exposition import new_registry

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
LAG = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300)
POOL = ("images", "featurised", "unreadable")


@dataclass(frozen=True, slots=True)
class Move:
    """One annotation that came, changed or went between two turns."""

    kind: str  # created | changed | skipped | deleted
    at: str | None  # when it happened, where that is known


class SyncMetrics:
    """One watcher's. Every method is quick and asks no server."""

    def __init__(self) -> None:
        self.registry = new_registry()
        self.exposed = False  # whether anybody can read them: what costs more is counted only then
        self.leader = self._gauge("leader", "1 where this watcher holds the lease")
        self.turns = self._histogram("turn_seconds", "One check of one project", ("changed",))
        self.failed = self._counter("failed_turns", "Checks that ended in an error", ("project",))
        self.looked = self._gauge("last_turn_timestamp_seconds", "Last successful check of a project", "project")
        self.studio = self._histogram("studio_seconds", "Requests to Label Studio", ("call", "status"))
        self.events = self._counter("events", "Log lines, by their action", ("action", "level"))
        self.queued = self._counter("queued_jobs", "Jobs that the plan queued", ("project", "kind"))
        self.pushed = self._counter("pushed_predictions", "Predictions pushed into Label Studio", ("project",))
        self._info = self._gauge("info", "1, with the code that runs", "code")
        self._info.labels(code_version()).set(1)
        self._annotations_and_snapshots()
        self._state()
        self._sequence: dict[str, int] = {}
        self._shown: dict[str, str] = {}

    def _annotations_and_snapshots(self) -> None:
        self.moves = self._counter("annotations", "Annotations created, changed, skipped, deleted", ("project", "kind"))
        self.lag = Histogram(
            "labelloop_sync_lag_seconds", "From a submit to its being noticed", buckets=LAG, registry=self.registry
        )
        self.freezes = self._counter("freezes", "Snapshots that were frozen", ("project",))
        self.freeze = self._histogram("freeze_seconds", "Writing one snapshot", ())
        self.sequence = self._gauge("snapshot_sequence", "Number of the newest snapshot", "project")
        self.held = self._gauge("snapshot_annotations", "Annotations in the newest snapshot", "project")

    def _state(self) -> None:
        self.pool = self._gauge("pool", "Images, by state", "project", "state")
        self.until = self._gauge("labels_until", "Labels missing until the next run", "project", "kind")
        self.waiting = self._gauge("waiting", "1 where something is due and cannot run", "project")
        self.problem = self._gauge("problem", "1 where the project has a problem", "project")
        self.unread = self._gauge("unread_annotators", "People who may accept pre-labels unread", "project")
        self.version = self._gauge("version_info", "1 for the version whose order is shown", "project", "version")
        self.switches = self._counter("switches", "Changes of the version whose order is shown", ("project",))
        self.depth = self._gauge("queue_depth", "Jobs that wait", "queue")
        self.oldest = self._gauge("queue_oldest_seconds", "How long the first of them has waited", "queue")

    # --- what the watcher tells

    def saw(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """Every project's facts, after a round."""
        for key in set(self._shown) - set(facts):
            self._forget(key)
        for key, figures in facts.items():
            self._saw(key, figures)

    def moved(self, project: str, moves: Sequence[Move]) -> None:
        """Annotations that a turn found."""
        for kind, count in Tally(m.kind for m in moves).items():
            self.moves.labels(project, kind).inc(count)
        for move in moves:
            if move.at:
                self.lag.observe(max(age_s(move.at), 0))

    def queues(self, depths: Mapping[str, int], jobs: Sequence[JobState]) -> None:
        """How much waits, and how long."""
        waits = oldest_waits(jobs)
        for name, depth in depths.items():
            self.depth.labels(name).set(depth)
            self.oldest.labels(name).set(waits.get(name, 0.0))

    def heard(self, event: Mapping[str, Any]) -> None:
        """One log line."""
        action, project = str(event.get("action")), str(event.get("project", ""))
        self.events.labels(action, str(event.get("level"))).inc()
        if action == "queue":
            self.queued.labels(project, str(event.get("kind"))).inc()
        if action == "freeze":
            self.freeze.observe(float(event.get("seconds", 0)))
        if action == "push":
            self.pushed.labels(project).inc(int(event.get("count", 0)))

    def asked_studio(self, call: str, seconds: float, status: int) -> None:
        """One request to Label Studio."""
        answer = "401" if status == 401 else f"{status // 100}xx" if status else "none"
        self.studio.labels(call, answer).observe(seconds)

    # --- from facts to figures

    def _saw(self, key: str, facts: Mapping[str, Any]) -> None:
        self.problem.labels(key).set(bool(facts.get("problem")))
        self.unread.labels(key).set(len(facts.get("unread") or ()))
        pool = facts.get("pool") or {}
        for state in POOL:
            self.pool.labels(key, state).set(pool.get(state, 0))
        plan = facts.get("plan") or {}
        for kind in ("refresh", "retrain"):
            self.until.labels(key, kind).set(plan.get(f"until_{kind}") or 0)
        self.waiting.labels(key).set(bool(plan.get("waiting")))
        self._snapshot(key, facts.get("latest") or {})
        self._published(key, str(facts.get("published") or ""))

    def _snapshot(self, key: str, latest: Mapping[str, Any]) -> None:
        sequence = int(latest.get("sequence", 0))
        before = self._sequence.setdefault(key, sequence)
        self.freezes.labels(key).inc(max(sequence - before, 0))
        self._sequence[key] = sequence
        self.sequence.labels(key).set(sequence)
        self.held.labels(key).set(latest.get("annotations", 0))

    def _published(self, key: str, version: str) -> None:
        before = self._shown.get(key)
        self.switches.labels(key).inc(bool(before and version and version != before))
        if before and before != version:
            self.version.remove(key, before)
        self._shown[key] = version
        if version:
            self.version.labels(key, version).set(1)

    def _forget(self, key: str) -> None:
        """A project that nobody looks after any more."""
        if version := self._shown.pop(key):
            self.version.remove(key, version)
        self._sequence.pop(key, None)
        for gauge in (self.problem, self.unread, self.waiting, self.sequence, self.held, self.looked):
            _remove(gauge, key)
        for state in POOL:
            _remove(self.pool, key, state)
        for kind in ("refresh", "retrain"):
            _remove(self.until, key, kind)

    def _counter(self, name: str, what: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"labelloop_sync_{name}", what, labels, registry=self.registry)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(f"labelloop_sync_{name}", what, labels, registry=self.registry)

    def _histogram(self, name: str, what: str, labels: tuple[str, ...]) -> Histogram:
        return Histogram(f"labelloop_sync_{name}", what, labels, buckets=SECONDS, registry=self.registry)


def moves_between(before: Mapping[int, Task], after: Mapping[int, Task]) -> Iterator[Move]:
    """Annotations created, changed, skipped, deleted. Tasks that are the same object are not looked into."""
    for number, task in after.items():
        earlier = before.get(number)
        if earlier is not task:
            yield from _moves(earlier.annotations if earlier else (), task.annotations)
    for number, task in before.items():
        if number not in after:
            yield from _moves(task.annotations, ())


def oldest_waits(jobs: Sequence[JobState]) -> dict[str, float]:
    """Queue -> seconds that the job which waits longest has waited."""
    waits: dict[str, float] = {}
    for job in jobs:
        if job.status == "queued" and job.queued_at and job.kind in KINDS:
            name = KINDS[job.kind].queue
            waits[name] = max(waits.get(name, 0.0), age_s(job.queued_at))
    return waits


def _moves(before: Sequence[Annotation], after: Sequence[Annotation]) -> Iterator[Move]:
    earlier = {(a.id, a.created_at): a for a in before}
    for annotation in after:
        old = earlier.pop((annotation.id, annotation.created_at), None)
        if old is None:
            yield Move("skipped" if annotation.cancelled else "created", annotation.created_at)
        elif old.updated_at != annotation.updated_at:
            yield Move("changed", annotation.updated_at)
    for _ in earlier:
        yield Move("deleted", None)


def _remove(gauge: Gauge, *labels: str) -> None:
    gauge.labels(*labels)  # or it could not be removed
    gauge.remove(*labels)
