"""What Prometheus sees of a worker: its jobs, how long they took, and how runs ended. docs/metrics.md explains each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from labelloop.code import code_version
from labelloop.web.exposition import new_registry

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)


class WorkerMetrics:
    """One worker process's."""

    def __init__(self) -> None:
        self.registry = new_registry()
        self.jobs = self._counter("jobs", "Jobs that ended", ("kind", "outcome"))
        self.seconds = self._histogram("job_seconds", "From a job's start to its end", ("kind",))
        self.waited = self._histogram("wait_seconds", "From queueing a job to its start", ("kind",))
        self.verdicts = self._counter("verdicts", "Runs that came to a verdict", ("project", "kind", "outcome"))
        self.events = self._counter("events", "Log lines, by their action", ("action", "level"))
        self.busy = Gauge("labelloop_worker_busy", "1 while a job runs", registry=self.registry)
        info = Gauge("labelloop_worker_info", "1, with the code that runs", ("code",), registry=self.registry)
        info.labels(code_version()).set(1)

    def ended(self, meta: Mapping[str, Any], *, succeeded: bool, took_s: float, result: object) -> None:
        """One job; ``meta`` is what the queue keeps beside it, ``result`` what it returned."""
        kind = str(meta.get("kind", "?"))
        self.jobs.labels(kind, "finished" if succeeded else "failed").inc()
        self.seconds.labels(kind).observe(took_s)
        if isinstance(result, Mapping) and "outcome" in result:
            self.verdicts.labels(str(meta.get("project", "")), kind, str(result["outcome"])).inc()

    def heard(self, event: Mapping[str, Any]) -> None:
        """One log line."""
        self.events.labels(str(event.get("action")), str(event.get("level"))).inc()

    def _counter(self, name: str, what: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"labelloop_worker_{name}", what, labels, registry=self.registry)

    def _histogram(self, name: str, what: str, labels: tuple[str, ...]) -> Histogram:
        return Histogram(f"labelloop_worker_{name}", what, labels, buckets=SECONDS, registry=self.registry)
