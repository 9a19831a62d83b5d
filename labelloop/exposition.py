"""A registry of metrics in, a port that Prometheus reads out; only where a port is given."""

from __future__ import annotations

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics, start_http_server

from labelloop.settings import Settings

log = structlog.get_logger()


def new_registry() -> CollectorRegistry:
    """One that also tells the process's own memory, CPU time and open files (`process_…`)."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a second row for every counter, which nobody asks for
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def expose(registry: CollectorRegistry, settings: Settings) -> bool:
    """Show the metrics under /metrics from a thread of its own; False where no port is given, or it is taken."""
    port, address = settings.metrics_port, settings.metrics_bind
    if port is None:
        return False
    try:
        start_http_server(port, addr=address, registry=registry)
    except OSError as error:  # the work matters more than its figures
        log.warning("no metrics", action="metrics", port=port, address=address, reason=str(error))
        return False
    log.info("metrics shown", action="metrics", port=port, address=address)
    return True
