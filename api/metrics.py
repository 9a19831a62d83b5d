"""What Prometheus sees of the API, on the port of `LABELLOOP_METRICS_PORT`. docs/metrics.md explains each."""

from __future__ import annotations

import time

from flask import Flask, Response, g, request
from prometheus_client import Counter, Histogram

from labelloop.web.exposition import new_registry

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 100)
UNKNOWN = "unknown"  # a path that is no route: anybody can ask for any


class ApiMetrics:
    """Safe to share between threads."""

    def __init__(self) -> None:
        self.registry = new_registry()
        self.requests = Counter(
            "labelloop_api_requests", "Requests answered", ("endpoint", "status"), registry=self.registry
        )
        self.latency = Histogram(
            "labelloop_api_request_seconds", "Time to answer", ("endpoint",), buckets=BUCKETS, registry=self.registry
        )

    def refused(self, path: str, status: int) -> None:
        """Before Flask has seen it."""
        name = path.removeprefix("/v1/") if path.count("/") == 2 and path.startswith("/v1/") else UNKNOWN
        self.requests.labels(f"v1.{name}" if name in {"classify", "models", "projects"} else UNKNOWN, str(status)).inc()


def add_metrics(app: Flask, metrics: ApiMetrics) -> None:
    """Count every answer. Called before all other edges, so that it times them, too."""

    @app.before_request
    def begin() -> None:
        g.begun = time.perf_counter()

    @app.after_request
    def end(response: Response) -> Response:
        name = request.endpoint or UNKNOWN
        metrics.requests.labels(name, str(response.status_code)).inc()
        metrics.latency.labels(name).observe(time.perf_counter() - g.get("begun", time.perf_counter()))
        return response
