"""How gunicorn runs the API (``--config python:api.serve``): its lines as ours."""

from __future__ import annotations

from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from labelloop.config.settings import load_settings
from labelloop.logs import configure_logs, take_over


class Lines(Logger):  # type: ignore[misc]
    """Gunicorn's own lines: one JSON object each, without secrets."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        settings = load_settings()
        configure_logs(json=settings.log_json, service="api", secrets=settings.secrets)
        take_over(self.error_log)
        if cfg.accesslog:
            take_over(self.access_log)


logger_class = Lines
