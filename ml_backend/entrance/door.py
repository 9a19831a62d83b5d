"""Who comes in, how far, and what it may cost: decided from a request's head, before its body is read."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from werkzeug.datastructures import Authorization

from labelloop.web.browsers import asked_by_page
from labelloop.web.callers import Callers
from labelloop.web.classify_types import MAX_BODY as MAX_IMAGES_BODY
from labelloop.web.classify_types import PATH as CLASSIFY_PATH
from labelloop.web.problems import REQUEST_ID, ProblemAnswer, request_id_of, title_of
from ml_backend.auth import OPEN, AccessGate
from ml_backend.contract import reason_phrase

MIB = 1024 * 1024
MAX_BODY = 64 * MIB  # thousands of tasks with their annotations
RETRY_AFTER_S = 1


@dataclass(frozen=True, slots=True)
class Lane:
    """Threads of their own for one kind of request, so that no other kind can take them."""

    name: str
    threads: int
    waiting: int  # requests that may wait for a thread; more are refused at once
    max_body: int = 64 * 1024  # bytes of one request
    max_bodies: int = 16 * MIB  # bytes of all its requests together


VIEWS = Lane("views", threads=4, waiting=256)  # /health, /ready, /metrics: from memory alone
HINTS = Lane("hints", threads=2, waiting=256, max_body=4 * MIB, max_bodies=32 * MIB)  # no password: its own memory
SETUPS = Lane("setups", threads=32, waiting=64, max_body=MIB)
VERSIONS = Lane("versions", threads=4, waiting=16)
PREDICTS = Lane("predicts", threads=128, waiting=64, max_body=MAX_BODY, max_bodies=256 * MIB)  # see `Places`
CLASSIFIES = Lane("classifies", threads=16, waiting=32, max_body=MAX_IMAGES_BODY, max_bodies=4 * MAX_IMAGES_BODY)
LANES = (VIEWS, HINTS, SETUPS, VERSIONS, PREDICTS, CLASSIFIES)
LANE_OF = {
    "/health": VIEWS, "/ready": VIEWS, "/metrics": VIEWS, "/webhook": HINTS, "/setup": SETUPS,
    "/versions": VERSIONS, "/predict": PREDICTS, CLASSIFY_PATH: CLASSIFIES,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer without a look at the body, in the form of every other error (see `contract.problem`)."""

    status: int
    message: str
    header: tuple[str, str] | None = None
    request_id: str = ""  # of a call of the REST API: its errors are problems

    def to_response(self, _ident: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        """Status line, headers and body, as waitress asks for them."""
        if self.request_id:
            problem = ProblemAnswer(self.status, self.message)
            line = f"{self.status} {title_of(self.status)}"
            return line, problem.all_headers(self.request_id), problem.body(self.request_id)
        headers = [("Content-Type", "application/json")]
        body = json.dumps({"error": self.message}).encode()
        return f"{self.status} {reason_phrase(self.message)}", headers + ([self.header] if self.header else []), body


RETRY = ("Retry-After", str(RETRY_AFTER_S))
BUSY = Refusal(503, "labelloop is busy: too many requests wait already; try again soon", RETRY)
FULL = Refusal(503, "labelloop holds too many bytes of requests already; try again soon", RETRY)
STRANGER = Refusal(
    401, "labelloop: wrong or missing basic auth user and password", ("WWW-Authenticate", 'Basic realm="labelloop"')
)
NO_PAGES = "labelloop: Label Studio calls this backend, no web page does"
PAGE = Refusal(403, NO_PAGES)


class BodyBudget:
    """Bytes of bodies that one lane holds at present."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held, self._lock = limit, 0, threading.Lock()

    def take(self, size: int) -> bool:
        """False where that would be too much; then nothing is taken."""
        with self._lock:
            if self._held + size > self._limit:
                return False
            self._held += size
            return True

    def give_back(self, size: int) -> None:
        """What was taken is free again."""
        with self._lock:
            self._held -= size


class Door:
    """Looks at a request's head. ``count`` hears of every refusal: (path, status)."""

    lanes = LANES

    def __init__(
        self, gate: AccessGate, count: Callable[[str, int], None] = lambda *_: None, callers: Callers | None = None
    ) -> None:
        self._gate, self.count, self._callers = gate, count, callers
        self.budgets = {lane.name: BodyBudget(lane.max_bodies) for lane in LANES}

    def refusal(self, path: str, headers: Mapping[str, str], length: int) -> Refusal | None:
        """Why a request goes no further, or None; names of headers as waitress has them (``CONTENT_LENGTH``)."""
        if asked_by_page(
            headers.get("ORIGIN"), headers.get("SEC_FETCH_SITE")
        ):  # before 401: no page makes a browser ask
            return PAGE
        if path.startswith("/v1/"):
            stranger = self._callers.refusal(headers.get("AUTHORIZATION")) if self._callers else None
            return Refusal(stranger.status, stranger.detail) if stranger else too_large(lane_of(path), length)
        if path.removeprefix("/") not in OPEN and not self._known(headers.get("AUTHORIZATION")):
            return STRANGER
        return too_large(lane_of(path), length)

    def lane_of(self, path: str) -> Lane:
        """See `lane_of`."""
        return lane_of(path)

    def worded(self, why: Refusal, path: str, headers: Mapping[str, str]) -> Refusal:
        """In the form that errors have on this path."""
        return as_a_problem(why, headers) if path.startswith("/v1/") else why

    def _known(self, header: str | None) -> bool:
        return self._gate.knows(Authorization.from_header(header))


def lane_of(path: str) -> Lane:
    """Where a request is answered. What is not there is said from memory, too."""
    return LANE_OF.get(path, VIEWS)


def as_a_problem(why: Refusal, headers: Mapping[str, str]) -> Refusal:
    """The same, as the REST API says it."""
    return replace(why, request_id=request_id_of(headers.get(REQUEST_ID.upper().replace("-", "_"))))


def too_large(lane: Lane, size: int) -> Refusal | None:
    """Of a body, where it is."""
    if size <= lane.max_body:
        return None
    return Refusal(413, f"the body has more than {lane.max_body:,} bytes; send less at a time")
