"""Structured logs: one line per event, a fixed ``action``, no secrets."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

SECRET = ("password", "secret", "token", "authorization", "access_key", "redis_url")
HIDDEN = "[hidden]"


def configure_logs(*, json: bool, level: int = logging.INFO) -> None:
    """Set the process's log form: JSON for machines, aligned text for a terminal. Called once per process."""
    renderer = structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=False)
    trace = [structlog.processors.format_exc_info] if json else []
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            hide_secrets,
            *trace,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,  # a later configure counts for loggers made at import, too
    )


class Log:
    """A logger whose every line names an action."""

    def __init__(self, room: str, **facts: Any) -> None:
        self._log = structlog.stdlib.get_logger(room=room, **facts)

    def info(self, action: str, **facts: Any) -> None:
        """Something happened as it should."""
        self._log.info(action, action=action, **facts)

    def warning(self, action: str, **facts: Any) -> None:
        """Something was refused or fell back; the loop goes on."""
        self._log.warning(action, action=action, **facts)

    def failure(self, action: str, error: BaseException, **facts: Any) -> None:
        """An error nobody planned for, with its stack."""
        self._log.error(action, action=action, exc_info=error, **facts)


def hide_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blank every value whose name sounds like a secret, at any depth of dicts."""
    for name, value in event.items():
        if any(word in name.lower() for word in SECRET):
            event[name] = HIDDEN
        elif isinstance(value, dict):
            event[name] = hide_secrets(None, "", dict(value))
    return event
