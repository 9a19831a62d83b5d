"""Structured logs: one line per event, a fixed ``action``, the libraries' lines in the same form, no secrets."""

from __future__ import annotations

import json as json_module
import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, TextIO

import structlog

SECRET = ("password", "secret", "token", "authorization", "access_key", "redis_url")
HIDDEN = "[hidden]"
LIBRARY = "library"  # the action of lines that are not ours; `logger` says whose they are
UNNAMED = "unnamed"
OnEvent = Callable[[Mapping[str, Any]], None]  # every line on its way out, before it is rendered

_QUOTE = r"\\?[\"']?"
PATTERNS = (  # what looks like a secret in any text: the first group stays
    r"(\b[a-z][a-z0-9+.-]*://)[^/\s:@\"']*:[^@\s/\"']+(?=@)",  # an address with a password
    rf"(?i)(\bauthorization{_QUOTE}\s*[:=]\s*{_QUOTE})(?:(?:token|bearer|basic)\s+)?[^\s\"',\\}}]+",
    r"(\b(?:Token|Bearer|Basic) )(?=\S*[0-9=+/_-])[A-Za-z0-9._~+/=-]{8,}",
    r"(\bll_[0-9a-f]{12}_)[A-Za-z0-9_-]{43}",  # an API key: its id stays
    r"()\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*",  # a JSON web token
    r"(?i)(\bx-amz-(?:signature|credential|security-token)=)[^&\s\"']+",
    rf"(?i)((?:password|passwd|secret_?key|secret_access_key|access_token|api_?key|auth_pass){_QUOTE}\s*[:=]\s*{_QUOTE})"
    r"[^\s\"'&,\\}]+",
)
_PATTERNS = tuple(re.compile(pattern) for pattern in PATTERNS)


def configure_logs(
    *, json: bool, service: str = "", secrets: Iterable[str] = (), level: int = logging.INFO,
    on_event: OnEvent | None = None,
) -> None:  # fmt: skip
    """Set the process's log form: JSON for machines, aligned text for a terminal. Called once per process.

    ``secrets``: values that no line may hold, wherever they come from.
    """
    shared = _shared(service, on_event)
    rendering = _rendering(json=json, mask=SecretMask(secrets))
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,  # a later configure counts for loggers made at import, too
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_of_library, *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
    )
    take_over(logging.getLogger(), formatter, logging.WARNING)
    logging.captureWarnings(capture=True)


def take_over(logger: logging.Logger, formatter: logging.Formatter | None = None, level: int | None = None) -> None:
    """Let a library's logger write as we do, whatever it has set up; without a formatter as the root logger does."""
    form = formatter or next((h.formatter for h in logging.getLogger().handlers if isinstance(h, _ToStderr)), None)
    for handler in [h for h in logger.handlers if isinstance(h, _ToStderr) or formatter is None]:
        logger.removeHandler(handler)
    handler = _ToStderr()
    handler.setFormatter(form)
    logger.addHandler(handler)
    if level is not None:
        logger.setLevel(level)


class SecretMask:
    """Blanks what is known to be a secret, or looks like one, in a finished line."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        written = {form for secret in secrets for form in (secret, json_module.dumps(secret)[1:-1]) if secret}
        longest_first = sorted(written, key=len, reverse=True)  # one may be a part of another
        self._known = re.compile("|".join(map(re.escape, longest_first))) if written else None

    def __call__(self, line: str) -> str:
        """The line, safe to show."""
        text = self._known.sub(HIDDEN, line) if self._known else line
        for pattern in _PATTERNS:
            text = pattern.sub(rf"\1{HIDDEN}", text)
        return text


def hide_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blank every value whose name sounds like a secret, at any depth."""
    for name, value in event.items():
        event[name] = HIDDEN if any(word in name.lower() for word in SECRET) else _clean(value)
    return event


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return hide_secrets(None, "", {str(k): v for k, v in value.items()})
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return tuple(_clean(item) for item in value) if type(value) is tuple else value  # an error's stack is one


def _shared(service: str, on_event: OnEvent | None) -> list[structlog.typing.Processor]:
    """What every line goes through, ours and the libraries'."""

    def name(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("action", UNNAMED)
        if service:
            event["service"] = service
        if on_event:
            on_event(event)
        return event

    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    return [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, stamp, name, hide_secrets]


def _rendering(*, json: bool, mask: SecretMask) -> list[structlog.typing.Processor]:
    if json:
        lines: list[structlog.typing.Processor] = [
            structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str),
        ]  # fmt: skip
    else:
        plain = structlog.dev.plain_traceback  # the pretty one shows local variables, and breaks lines within a secret
        lines = [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=plain)]

    def masked(_logger: Any, _method: str, line: Any) -> str:
        return mask(line)

    return [*lines, masked]


def _of_library(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    record: logging.LogRecord = event["_record"]
    event["action"], event["logger"] = LIBRARY, record.name
    return event


class _ToStderr(logging.StreamHandler[TextIO]):
    """Whatever is standard error at the time: tests and daemons exchange it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)
