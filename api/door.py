"""Who comes in, and what that may cost: decided from a request's head, before its body is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from labelloop.web.browsers import asked_from_elsewhere
from labelloop.web.callers import Callers
from labelloop.web.classify_types import PATH
from ml_backend.entrance.door import CLASSIFIES, VIEWS, BodyBudget, Lane, Refusal, as_a_problem, too_large

MIB = 1024 * 1024
CALLS = Lane("calls", threads=16, waiting=64, max_body=64 * 1024, max_bodies=4 * MIB)
LANES = (VIEWS, CALLS, CLASSIFIES)
NO_PAGES = Refusal(403, "a page of another address may not ask this")
BROWSERS = {"Origin": "ORIGIN", "Sec-Fetch-Site": "SEC_FETCH_SITE", "Sec-Fetch-Mode": "SEC_FETCH_MODE",
            "Sec-Fetch-Dest": "SEC_FETCH_DEST"}  # fmt: skip


class ApiDoor:
    """As the backend has one; every refusal is a problem."""

    lanes = LANES

    def __init__(self, callers: Callers, count: Callable[[str, int], None] = lambda *_: None) -> None:
        self._callers, self.count = callers, count
        self.budgets = {lane.name: BodyBudget(lane.max_bodies) for lane in LANES}

    def lane_of(self, path: str) -> Lane:
        """Where a request is answered: pages and probes from memory alone."""
        return CLASSIFIES if path == PATH else CALLS if path.startswith("/v1/") else VIEWS

    def refusal(self, path: str, headers: Mapping[str, str], length: int) -> Refusal | None:
        """Why a request goes no further, or None; names of headers as waitress has them."""
        browser = {name: headers[ours] for name, ours in BROWSERS.items() if ours in headers}
        if asked_from_elsewhere(browser, headers.get("HOST", "")):
            return NO_PAGES
        if path.startswith("/v1/") and (why := self._callers.refusal(headers.get("AUTHORIZATION"))):
            return Refusal(why.status, why.detail)
        return too_large(self.lane_of(path), length)

    def worded(self, why: Refusal, _path: str, headers: Mapping[str, str]) -> Refusal:
        """As a problem."""
        return as_a_problem(why, headers)
