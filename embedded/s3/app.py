"""The guard: refuses before the body is read, and hands on one operation at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from embedded.s3.calls import Call, call_of
from embedded.s3.request import S3Refused, S3Request, request_of
from embedded.s3.signature import Key, check_body, verified

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY = 5 * 1024**3  # bytes, as S3 has it
DRAINED = 16 * 1024**2  # of a refused body: who is still sending does not read the answer
DRAIN_S = 5.0
BODILESS = frozenset({204, 304})
# what is stored is shown as data: no page, no script of an object ever runs, also where somebody presigned its address
SAFE = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
}

log = logging.getLogger("s3")


@dataclass(frozen=True, slots=True)
class S3Response:
    """What goes back."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


class S3Guard:
    """The ASGI application. `perform` is called by one thread alone: so a condition and its write are one step."""

    def __init__(
        self,
        key: Key,
        hosts: Collection[str],
        perform: Callable[[Call, bytes], S3Response],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key, self._hosts, self._perform, self._clock = key, frozenset(hosts), perform, clock
        self._one = ThreadPoolExecutor(1, "s3")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        answer = await self._answer(scope, receive)
        await _send(send, answer, head=scope["method"] == "HEAD")

    async def _answer(self, scope: Message, receive: Receive) -> S3Response:
        try:
            request, call, payload = self._permitted(scope)
        except S3Refused as refused:
            return refusal(refused, hang_up=not await _drained(scope, receive))
        try:
            body = await _body(request, receive)
            check_body(body, payload)
            return await asyncio.get_running_loop().run_in_executor(self._one, self._perform, call, body)
        except S3Refused as refused:
            return refusal(refused)
        except Exception:  # the edge of a request: the server goes on
            log.exception("a request failed")
            return refusal(S3Refused(500, "InternalError", "the S3 server failed on this request; its log says why"))

    def _permitted(self, scope: Message) -> tuple[S3Request, Call, str]:
        """(request, call, hash of its body), judged by the head alone; S3Refused."""
        request = request_of(scope, self._hosts)
        payload = verified(request, self._key, self._clock())
        call = call_of(request)
        if _length(request) > MAX_BODY:
            raise S3Refused(400, "EntityTooLarge", f"a body has at most {MAX_BODY:,} bytes")
        return request, call, payload


def refusal(refused: S3Refused, *, hang_up: bool = False) -> S3Response:
    """An S3 error. `hang_up`: what is left of the body must not be read as the next request."""
    text = f"<Error><Code>{refused.code}</Code><Message>{escape(refused.message)}</Message></Error>"
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    headers = {"content-type": "application/xml", **({"connection": "close"} if hang_up else {})}
    return S3Response(refused.status, headers, (head + text).encode())


def _length(request: S3Request) -> int:
    declared = request.headers.get("content-length", "0")
    if not re.fullmatch(r"[0-9]{1,15}", declared):
        raise S3Refused(400, "InvalidRequest", "Content-Length is no number")
    return int(declared)


async def _body(request: S3Request, receive: Receive) -> bytes:
    """Exactly as long as it was said to be; S3Refused where it is not."""
    chunks, more = [], True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise S3Refused(400, "IncompleteBody", "the body ended too early")
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"".join(chunks)
    if len(body) != _length(request):
        raise S3Refused(400, "IncompleteBody", "the body is not as long as it was said to be")
    return body


async def _drained(scope: Message, receive: Receive) -> bool:
    """Takes the rest of a refused body, so that the client comes to reading why; False where that is too much."""
    if any(name == b"expect" for name, _ in scope["headers"]):  # it has sent nothing yet
        return False
    left, more = DRAINED, True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while more and left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                more = bool(message.get("more_body", False))
    return not more


async def _send(send: Send, answer: S3Response, *, head: bool) -> None:
    headers = {name.lower(): value for name, value in {**answer.headers, **SAFE}.items()}
    headers = {name: value for name, value in headers.items() if not name.startswith("access-control-")}
    if not head and answer.status not in BODILESS:
        headers["content-length"] = str(len(answer.body))
    pairs = [(name.encode("latin-1"), str(value).encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
    await send({"type": "http.response.body", "body": b"" if head else answer.body})
