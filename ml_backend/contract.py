"""Label Studio's JSON in, checked values out; and errors in the only place where Label Studio shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Request, Response, jsonify
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from labelloop.errors import LabelloopError

SHOWN = 200  # characters of a message that Label Studio can show


class RequestError(LabelloopError):
    """The request cannot be answered; ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def body_of(request: Request) -> dict[str, Any]:
    """The JSON object that was sent; RequestError where it is none."""
    try:
        body = request.get_json(force=True)
    except (BadRequest, UnsupportedMediaType, RecursionError) as error:
        raise RequestError("the body is no valid JSON") from error
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object")
    return body


def text_of(body: Mapping[str, Any], name: str) -> str:
    """A text field, empty where it is missing."""
    value = body.get(name)
    if value is not None and not isinstance(value, str | int | float):
        raise RequestError(f"{name!r} must be text")
    return "" if value is None else str(value)


def tasks_of(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The tasks; RequestError where they are not a list of objects."""
    tasks = body.get("tasks")
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise RequestError("'tasks' must be a list of tasks (JSON objects)")
    return tasks


def project_of_event(body: Mapping[str, Any]) -> int | str | None:
    """What a webhook event says of its project; untrusted, so cut short and never followed."""
    project = body.get("project")
    if isinstance(project, dict):
        project = project.get("id")
    if isinstance(project, bool) or not isinstance(project, int | str):
        return None
    return project if isinstance(project, int) else project[:64]


def action_of_event(body: Mapping[str, Any]) -> str:
    """What has happened, as the event names it."""
    action = body.get("action")
    return action[:64] if isinstance(action, str) else ""


def problem(message: str, status: int) -> Response:
    """A JSON error. Label Studio drops the body and shows the reason phrase: so the message stands in both."""
    response = jsonify({"error": message})
    response.status = f"{status} {reason_phrase(message)}"
    return response


def reason_phrase(message: str) -> str:
    """A message as one short ASCII line, as HTTP wants it."""
    line = " ".join(message.split()).encode("ascii", "replace").decode()
    printable = "".join(c if c.isprintable() else " " for c in line)
    return printable if len(printable) <= SHOWN else printable[: SHOWN - 3] + "..."
