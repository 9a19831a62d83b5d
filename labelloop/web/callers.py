"""A request's head in, who asks out: the same rule before a body is read and when the request is answered."""

from __future__ import annotations

from labelloop.records.api_keys import ApiKey
from labelloop.rules.api_keys import KeyRefusal
from labelloop.web.known_keys import KnownKeys
from labelloop.web.problems import ProblemAnswer, ProblemError
from labelloop.web.rates import Rates


class Callers:
    """Who may ask what, and how often."""

    def __init__(self, keys: KnownKeys) -> None:
        self.keys, self._rates = keys, Rates()

    def refusal(self, authorization: str | None) -> ProblemAnswer | None:
        """Why nobody needs to read this request's body, or None."""
        answer = self.keys.find(authorization)
        return ProblemAnswer(answer.status, answer.reason) if isinstance(answer, KeyRefusal) else None

    def enter(self, authorization: str | None) -> ApiKey:
        """The key, for one request, which is counted; ProblemError (401, 429, 503). What it may, `lacks` says."""
        key = self.keys.find(authorization)
        if isinstance(key, KeyRefusal):
            raise ProblemError(key.status, key.reason)
        if wait_s := self._rates.wait_s(key):
            raise ProblemError(429, f"key {key.id} may ask {key.per_minute} times a minute; go on in {wait_s} s",
                               retry_s=wait_s)  # fmt: skip
        return key


def must(why: KeyRefusal | None) -> None:
    """ProblemError where there is a reason."""
    if why is not None:
        raise ProblemError(why.status, why.reason)
