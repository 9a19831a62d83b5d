"""A registry of metrics in, a port that Prometheus reads out; only where a port is given."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics, make_wsgi_app

from labelloop.config.settings import Settings
from labelloop.web.browsers import asked_by_page, is_foreign_name, is_loopback

App = Callable[[Any, Any], Iterable[bytes]]

log = structlog.get_logger()


def new_registry() -> CollectorRegistry:
    """One that also has the process's own memory, CPU time and open files (`process_…`)."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a second row for every counter, which nobody asks for
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def expose(registry: CollectorRegistry, settings: Settings) -> bool:
    """Show the metrics under /metrics from a thread of its own; False where no port is given, or it is taken."""
    port, address = settings.metrics_port, settings.metrics_bind
    if port is None:
        return False
    app = metrics_alone(make_wsgi_app(registry), local=is_loopback(address))
    try:
        server = make_server(address, port, app, _server_for(address), _Quiet)
    except OSError as error:  # the work matters more than its figures
        log.warning("no metrics", action="metrics", port=port, address=address, reason=str(error))
        return False
    Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    log.info("metrics shown", action="metrics", port=port, address=address)
    return True


def metrics_alone(app: App, *, local: bool = False) -> App:
    """Only ``GET /metrics``, and no web page: prometheus_client answers any path and any caller.

    ``local``: it listens for this machine alone, so that a foreign name which leads here is a web page's.
    """

    def answer(environ: Any, start_response: Any) -> Iterable[bytes]:
        right = environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"] == "/metrics"
        page = asked_by_page(environ.get("HTTP_ORIGIN"), environ.get("HTTP_SEC_FETCH_SITE"))
        if right and not page and not (local and is_foreign_name(environ.get("HTTP_HOST", ""))):
            return app(environ, start_response)
        start_response("403 Forbidden" if right else "404 Not Found", [("Content-Length", "0")])
        return []

    return answer


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    timeout = 10  # seconds; who says nothing for so long is hung up on

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing."""


def _server_for(address: str) -> type[_Server]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return type("_Server", (_Server,), {"address_family": family})
