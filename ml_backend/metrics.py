"""What Prometheus sees of the backend, in a registry of its own. docs/metrics.md explains each."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 100)


class Metrics:
    """Counters of one process; safe to share between threads.

    ``shared``: where several gunicorn processes count together; whichever is asked answers for all of them.
    """

    def __init__(self, shared: Path | None = None) -> None:
        self._shared = shared
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second row for every counter
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests answered", ("endpoint", "status"))
        self.latency = Histogram(
            "labelloop_backend_request_seconds",
            "Time to answer",
            ("endpoint",),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.images = self._counter("images", "Requested images, by answer", ("answer",))
        self.unreadable = self._counter("unreadable_images", "Images that could not be read", ("reason",))
        self.swaps = self._counter("swaps", "Versions that went live", ("project", "kind"))
        self.refused = self._counter("refused_versions", "Versions that were not loaded", ("project",))
        self._version = Gauge(
            "labelloop_backend_version_info", "1 for the version that answers", ("project", "version", "backbone"),
            registry=self.registry, multiprocess_mode="liveall",
        )  # fmt: skip
        self._shown: dict[str, tuple[str, str, str]] = {}

    def live(self, project: str, version: str, backbone: str) -> None:
        """Show the version that a project serves now instead of the one before."""
        self.forget(project)
        self._shown[project] = (project, version, backbone)
        self._version.labels(project, version, backbone).set(1)

    def forget(self, project: str) -> None:
        """The project is no longer loaded."""
        before = self._shown.pop(project, None)
        if before and self._shared:
            self._version.labels(*before).set(0)  # a row in a shared file cannot be taken out
        elif before:
            self._version.remove(*before)

    def text(self) -> bytes:
        """The exposition format."""
        if self._shared is None:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together, path=str(self._shared))  # type: ignore[no-untyped-call]
        return generate_latest(together)

    def _counter(self, name: str, what: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"labelloop_backend_{name}", what, labels, registry=self.registry)
