"""`/v1/classify`: handed on to the backend's process, which has the models; here are its limits and its document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import httpx
from flask import Request, Response

from labelloop.web.problems import PROBLEM, REQUEST_ID, ProblemError

TIMES = httpx.Timeout(5.0, connect=2.0, read=110.0, write=30.0)
CONNECTIONS = httpx.Limits(max_connections=32, max_keepalive_connections=8, keepalive_expiry=5.0)
PIECE = 64 * 1024
MAX_ANSWER = 16 * 1024 * 1024
PASSED_ON = ("Authorization", "Content-Type", "Content-Length")
PASSED_BACK = ("Retry-After", "Allow", "WWW-Authenticate")
AWAY = "the backend that has the models does not answer; try again soon"


class Onward:
    """The way to the backend. Safe to share between threads."""

    def __init__(self, backend_url: str, transport: httpx.BaseTransport | None = None) -> None:
        self._client = httpx.Client(
            base_url=backend_url, timeout=TIMES, limits=CONNECTIONS, trust_env=False, transport=transport
        )

    def send(self, path: str, request: Request, request_id: str) -> Response:
        """The backend's answer; ProblemError (503) where there is none that can be passed on."""
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        try:
            with self._client.stream(
                "POST", path, content=_pieces(request), headers={**headers, REQUEST_ID: request_id}
            ) as answer:
                return _passed_back(answer.status_code, answer.headers, _bounded(answer))
        except httpx.HTTPError as error:
            raise ProblemError(503, AWAY, retry_s=2) from error

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()


def _pieces(request: Request) -> Iterator[bytes]:
    """The body is in memory once; it is not copied whole."""
    while piece := request.stream.read(PIECE):
        yield piece


def _bounded(answer: httpx.Response) -> bytes:
    body = bytearray()
    for piece in answer.iter_raw():
        body += piece
        if len(body) > MAX_ANSWER:
            raise ProblemError(503, AWAY)
    return bytes(body)


def _passed_back(status: int, headers: Mapping[str, str], body: bytes) -> Response:
    """Only what the backend itself can have said: a gateway between us has other words for being away."""
    kind = headers.get("Content-Type", "")
    if kind not in {"application/json", PROBLEM} or (status == 200) != (kind == "application/json"):
        raise ProblemError(503, AWAY, retry_s=2)
    kept = {name: headers[name] for name in PASSED_BACK if name in headers}
    return Response(body, status, headers={"Content-Type": kind, **kept})
