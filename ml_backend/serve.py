"""How gunicorn runs the backend (``--config python:ml_backend.serve``): its lines as ours, counters of all processes.

Names that gunicorn knows are its settings, so nothing else here may be called like one of them.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from labelloop.config.settings import load_settings, share_counters, shared_counters
from labelloop.logs import configure_logs, take_over


class Lines(Logger):  # type: ignore[misc]
    """Gunicorn's own lines: one JSON object each, without secrets."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        settings = load_settings()
        configure_logs(json=settings.log_json, service="backend", secrets=settings.secrets)
        take_over(self.error_log)
        if cfg.accesslog:
            take_over(self.access_log)


logger_class = Lines
COUNTERS = "labelloop-counters-"


def on_starting(server: Any) -> None:
    """Before any worker is forked: several processes count together, a single one in its memory."""
    if server.cfg.workers > 1 and shared_counters() is None:
        share_counters(Path(tempfile.mkdtemp(prefix=COUNTERS)))


def child_exit(_server: Any, worker: Any) -> None:
    """The counts of a process that ended stay; what it served is taken out."""
    if folder := shared_counters():
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid, str(folder))  # type: ignore[no-untyped-call]


def on_exit(_server: Any) -> None:
    """Leave nothing behind that was made here."""
    folder = shared_counters()
    if folder and folder.name.startswith(COUNTERS):
        shutil.rmtree(folder, ignore_errors=True)
