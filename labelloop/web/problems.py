"""Errors of the REST API as RFC 9457 has them (``application/problem+json``), and ids to find a request by."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from http import HTTPStatus

from flask import Response, g, request
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.exceptions import HTTPException

from labelloop.errors import LabelloopError

PROBLEM = "application/problem+json"
REQUEST_ID = "X-Request-Id"
RETRY_AFTER_S = 1
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Problem(BaseModel):
    """What went wrong. ``detail`` says it in words, with what to do."""

    model_config = ConfigDict(title="Problem")

    type: str = Field("about:blank", description="Always about:blank: the status tells the kind.")
    title: str = Field(description="The status in words.", examples=["Not Found"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(description="What was wrong, and what to do.")
    request_id: str = Field("", description="Tell it when you ask for help: the logs have it.")


@dataclass(frozen=True, slots=True)
class ProblemAnswer:
    """One error on its way out."""

    status: int
    detail: str
    retry_s: int = 0  # when to ask again; every 503 says so
    headers: tuple[tuple[str, str], ...] = ()

    def problem(self, request_id: str = "") -> Problem:
        """As the body has it."""
        return Problem(type="about:blank", title=title_of(self.status), status=self.status, detail=self.detail,
                       request_id=request_id)  # fmt: skip

    def body(self, request_id: str) -> bytes:
        """JSON; halves of characters, which a client may have sent, are written out."""
        return json.dumps(self.problem(request_id).model_dump()).encode()

    def all_headers(self, request_id: str) -> list[tuple[str, str]]:
        """With the time to wait, which the two statuses that need one never lack."""
        wait = self.retry_s or (RETRY_AFTER_S if self.status in {429, 503} else 0)
        more = [("Retry-After", str(wait))] if wait else []
        if self.status == 401:
            more.append(("WWW-Authenticate", 'Bearer realm="labelloop"'))
        return [("Content-Type", PROBLEM), (REQUEST_ID, request_id), *self.headers, *more]

    def response(self, request_id: str) -> Response:
        """As Flask sends it."""
        return Response(self.body(request_id), self.status, headers=self.all_headers(request_id))


class ProblemError(LabelloopError):
    """The request cannot be answered."""

    def __init__(self, status: int, detail: str, *, retry_s: int = 0) -> None:
        super().__init__(detail)
        self.answer = ProblemAnswer(status, detail, retry_s)


def request_id_of(sent: str | None) -> str:
    """The id that the client gave, where it is one that a log can hold; else a new one."""
    return sent if sent and _ID.fullmatch(sent) else secrets.token_hex(8)


def title_of(status: int) -> str:
    """The standard's words."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def request_id() -> str:
    """Of the request that is being answered."""
    if "request_id" not in g:
        g.request_id = request_id_of(request.headers.get(REQUEST_ID))
    return str(g.request_id)


def http_problem(error: HTTPException) -> ProblemAnswer:
    """What the web framework refuses: 404, 405, 413."""
    allowed = getattr(error, "valid_methods", None)
    headers = (("Allow", ", ".join(sorted(allowed))),) if allowed else ()
    return ProblemAnswer(error.code or 500, error.description or error.name, headers=headers)
