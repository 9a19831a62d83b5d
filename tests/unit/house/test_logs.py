"""What the services write: one form, a fixed action on every line, and never a secret."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from labelloop.config.settings import load_settings
from labelloop.logs import HIDDEN, LIBRARY, UNNAMED, SecretMask, configure_logs
from ml_backend.serve import Lines

ROOT = Path(__file__).parents[3]
SERVICES = ("labelloop", "api", "ml_backend", "sync", "retrain_worker")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
SECTION = re.compile(r"^## Logs$(.*?)(?=^## |\Z)", flags=re.M | re.S)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_every_line_has_time_level_service_and_action(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(json=True, service="sync")
    with structlog.contextvars.bound_contextvars(project="main-1-2"):
        structlog.get_logger().warning("frozen", action="freeze", snapshot="abc")
    structlog.get_logger().info("somebody forgot")
    frozen, forgotten = lines(capsys)
    assert frozen.pop("timestamp").endswith("Z")
    assert frozen == {"event": "frozen", "action": "freeze", "snapshot": "abc", "level": "warning", "service": "sync",
                      "project": "main-1-2"}  # fmt: skip
    assert forgotten["action"] == UNNAMED


def test_lines_of_libraries_come_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(json=True, service="worker")
    logging.getLogger("rq.worker").warning("Worker %s: %s", "w1", "lost its job")
    logging.getLogger("httpx").info("a request that nobody wants to see")
    logging.getLogger("urllib3").error("retrying", exc_info=ValueError("deep inside"))
    worker, retrying = lines(capsys)
    assert (worker["event"], worker["action"], worker["logger"]) == ("Worker w1: lost its job", LIBRARY, "rq.worker")
    assert "ValueError: deep inside" in retrying["exception"]


def test_gunicorn_writes_as_we_do(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from gunicorn.config import Config

    monkeypatch.setenv("LABELLOOP_BACKEND_PASSWORD", "hunter2hunter2")
    logger = Lines(Config())
    logger.info("Booting worker with pid: %s and hunter2hunter2", 7)
    (line,) = lines(capsys)
    assert line["event"] == f"Booting worker with pid: 7 and {HIDDEN}"
    assert (line["logger"], line["service"]) == ("gunicorn.error", "backend")
    logger.error_log.handlers.clear()


PLANTED = {
    "redis": "r3dis-passw0rd",
    "token": "0123456789abcdef0123456789abcdef01234567",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoicmVmcmVzaCJ9.c2lnbmF0dXJl",
    "s3": 'wJalr"XUtnFEMI/K7MDENG',
    "backend": "open-sesame-now",
    "signature": "c0ffee0123456789",
}
TEXTS = (
    f"Error 111 connecting to redis://:{PLANTED['redis']}@valkey:6379/0.",
    f"rediss://loop:{PLANTED['redis']}@h/0 and https://u:{PLANTED['backend']}@host/x",
    f"headers {{'Authorization': 'Token {PLANTED['token']}'}}",
    f"Authorization: Bearer {PLANTED['jwt']}",
    f"sent Token {PLANTED['token']} to /api",
    f"the token was {PLANTED['jwt']}.",
    f"GET http://s3/images/a.png?X-Amz-Credential=AKIA/x&X-Amz-Signature={PLANTED['signature']}&x=1",
    f"aws_secret_access_key={PLANTED['s3']} basic_auth_pass: {PLANTED['backend']}",
    f"plain {PLANTED['s3']} in the middle",
)


def raised(text: str) -> Exception:
    """An error with a stack, whose frames hold the text, too."""

    def fail() -> None:
        inside = text
        raise RuntimeError(inside)

    with pytest.raises(RuntimeError) as caught:
        fail()
    return caught.value


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_no_planted_secret_is_ever_rendered(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load_settings({"LABELLOOP_S3_ACCESS_KEY": "AKIA", "LABELLOOP_S3_SECRET_KEY": PLANTED["s3"]})
    configure_logs(json=as_json, service="sync", secrets=settings.secrets)
    log = structlog.get_logger()
    for text in TEXTS:
        log.warning(text, action="test", reason=text, deep={"list": [{"why": text}]})
        logging.getLogger("rq.worker").warning(text)
        log.error("failed", action="test", exc_info=raised(text))
    log.warning("named", action="test", redis_url=PLANTED["redis"], config=[{"aws_secret_access_key": PLANTED["s3"]}],
                headers={"Authorization": PLANTED["token"]})  # fmt: skip
    written = capsys.readouterr().err
    assert written.count("failed") >= len(TEXTS)
    for name, secret in PLANTED.items():
        for form in (secret, json.dumps(secret)[1:-1]):
            assert form not in written, name


def test_what_is_no_secret_stays_readable() -> None:
    mask = SecretMask(["a-long-secret"])
    for text in (
        "labelloop: wrong or missing basic auth user and password",
        "LABELLOOP_BACKEND_PASSWORD is not set: everybody may ask",
        "http://127.0.0.1:8080/api/projects/1 answered 404",
        "s3://images/cats/1.png does not exist",
        "Basic authentication is wanted",
        "redis://valkey:6379/0 cannot be reached",
    ):
        assert mask(text) == text


def test_whoever_counts_lines_hears_each(capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[tuple[Any, Any]] = []
    configure_logs(json=True, on_event=lambda event: heard.append((event["action"], event["level"])))
    structlog.get_logger().error("x", action="turn")
    logging.getLogger("rq.worker").warning("y")
    assert heard == [("turn", "error"), (LIBRARY, "warning")]
    assert len(lines(capsys)) == 2


# --- every call names its action, and the document names them all


def calls() -> Iterator[tuple[Path, ast.Call]]:
    """Each `log.<level>(…)` of the services."""
    for package in SERVICES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS
                    and isinstance(node.func.value, ast.Name) and node.func.value.id == "log"
                ):  # fmt: skip
                    yield path, node


def actions_of(path: Path, call: ast.Call) -> str:
    actions = [k.value for k in call.keywords if k.arg == "action"]
    where = f"{path.relative_to(ROOT)}:{call.lineno}"
    assert len(actions) == 1, f"{where} names no action"
    assert isinstance(actions[0], ast.Constant), f"{where}: an action is a fixed word"
    return str(actions[0].value)


def test_every_log_call_has_a_fixed_action_and_the_document_lists_it() -> None:
    section = SECTION.search((ROOT / "docs/operations.md").read_text())
    assert section is not None
    listed = set(re.findall(r"^\| `([a-z_]+)` \|", section.group(1), flags=re.M))
    used = {actions_of(path, call) for path, call in calls()}
    assert used | {LIBRARY, UNNAMED} == listed
