"""An answer of Label Studio in, its JSON or what it refuses in words out. Used by `studio_http` alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from labelloop.errors import StudioError
from labelloop.names import encodable

LONGEST = 300  # characters of what it says
_NOISE = frozenset({"id", "version", "exc_info", "status_code", "display_context"})
_PROJECT = re.compile(r"api/projects/(\d+)(?:/|$)")


class StudioObject(dict[str, Any]):
    """A JSON object of Label Studio; StudioError where it lacks what every Label Studio sends."""

    def __missing__(self, name: str) -> Any:
        raise StudioError(f"the answer lacks {name!r}: is LABELLOOP_STUDIO_URL the address of Label Studio?")


def json_of(answer: httpx.Response, path: str) -> Any:
    """The JSON of an answer; lone halves of surrogate pairs, which nobody could write on, become �."""
    try:
        data = json.loads(answer.content)
    except (ValueError, RecursionError) as error:
        kind = answer.headers.get("content-type", "no content type").partition(";")[0]
        raise StudioError(
            f"{answer.request.url.copy_with(query=None)} answers with {kind}, no JSON, to /{path}: is "
            "LABELLOOP_STUDIO_URL the address of Label Studio, or does a proxy answer in its place?"
        ) from error
    if b"\\ud" in answer.content.lower():
        data = _encodable(data)
    return StudioObject(data) if isinstance(data, dict) else data


def refusal(answer: httpx.Response, method: str, path: str, params: Mapping[str, Any]) -> StudioError:
    """What an answer from 400 on means."""
    status = answer.status_code
    if status == 404 and (project := _project(path, params)):
        return StudioError(
            f"Label Studio has no project {project}: it was deleted, or the token's account may not see it. "
            f"`labelloop forget {project}` stops managing it",
            status=404,
        )
    message = message_in(answer.text)
    return StudioError(
        f"Label Studio answered {status} to {method} /{path}" + (f": {message}" if message else ""), status=status
    )


def message_in(text: str) -> str:
    """The sentences of an error page, JSON or HTML, without what only programs read."""
    try:
        message = "; ".join(dict.fromkeys(_sentences(json.loads(text))))
    except (ValueError, RecursionError):
        title = re.search(r"(?is)<title>(.*?)</title>", text)
        message = title.group(1) if title else re.sub(r"(?s)<[^>]*>", " ", text)
    return encodable(" ".join(message.split())[:LONGEST])


def _project(path: str, params: Mapping[str, Any]) -> str:
    match = _PROJECT.match(path)
    return match.group(1) if match else str(params.get("project") or "")


def _sentences(data: Any, name: str = "") -> Iterator[str]:
    if isinstance(data, dict):
        for key, value in data.items():
            if key not in _NOISE:
                yield from _sentences(value, key)
    elif isinstance(data, list):
        for item in data:
            yield from _sentences(item, name)
    elif isinstance(data, str) and data:
        yield data if name in {"", "detail", "validation_errors", "non_field_errors"} else f"{name}: {data}"


def _encodable(data: Any) -> Any:
    """The same JSON with its texts encodable. Without recursion: what could be read may be nested deeply."""
    box = [data]
    waiting: list[Any] = [box]
    while waiting:
        held = waiting.pop()
        if isinstance(held, dict):
            parts = [(encodable(name), value) for name, value in held.items()]
            held.clear()
            held.update(parts)
        for key, value in list(held.items() if isinstance(held, dict) else enumerate(held)):
            if isinstance(value, str):
                held[key] = encodable(value)
            elif isinstance(value, dict | list):
                waiting.append(value)
    return box[0]
