"""Requests to Label Studio: its token, and what it refuses, in words. Used by `studio` and `studio_wiring` alone."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from label_studio_sdk.core.api_error import ApiError
from label_studio_sdk.core.client_wrapper import SyncClientWrapper

from labelloop.errors import StudioError
from labelloop.studio.words import json_of, message_in, refusal

Reread = Callable[[], str]  # gives the token as it is now, after one was refused
OnCall = Callable[[str, float, int], None]  # (call with N for numbers, seconds, HTTP status or 0)


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that is still coming."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


class StudioHttp:
    """One server under one account. Every method may raise StudioError. Safe to share between threads."""

    def __init__(
        self, url: str, token: str, *, timeout_s: float = 60, reread: Reread | None = None,
        on_call: OnCall | None = None,
    ) -> None:  # fmt: skip
        self.url = url.rstrip("/")
        self._client = httpx.Client(timeout=timeout_s)
        self._timeout_s, self._reread, self._on_call = timeout_s, reread, on_call
        self._token = token
        self._wrapper: SyncClientWrapper | None = None

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    @property
    def token_kind(self) -> str:
        """`legacy` or `personal`: the two kinds of token that Label Studio knows."""
        return "personal" if self._token.count(".") == 2 else "legacy"

    def call(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: Any = None,
        timeout_s: float | None = None,
    ) -> Any:  # fmt: skip
        """The JSON of an answer; an empty dict where there is none."""
        return _json(self.answer(method, path, params=params, json=json, timeout_s=timeout_s), path)

    def call_once(self, path: str, params: Mapping[str, Any]) -> Any:
        """The JSON of an answer to GET, which is not asked for again where Label Studio fails on it."""
        request = {"method": "GET", "params": dict(params), "json": None, "request_options": {"max_retries": 0}}
        return _json(_checked(self._send(path, request), request, path), path)

    def answer(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: Any = None,
        timeout_s: float | None = None,
    ) -> httpx.Response:  # fmt: skip
        """An answer below 400. A refused token is read again, and where it was replaced the request is repeated."""
        options: dict[str, Any] = {"max_retries": 2 if method == "GET" else 0}  # a repeated POST could count twice
        if timeout_s:
            options["timeout"] = timeout_s
        request = {"method": method, "params": dict(params or {}), "json": json, "request_options": options}
        try:
            return _checked(self._send(path, request), request, path)
        except StudioError as error:
            if error.status != 401 or not self._was_replaced():
                raise
        return _checked(self._send(path, request), request, path)  # it was refused before anything was done

    @contextmanager
    def stream(self, path: str, *, params: Mapping[str, Any] | None = None, timeout_s: float) -> Iterator[Stream]:
        """An answer of any status, read as it comes: nobody has to hold all of it. A redirect is not followed."""
        options = {"timeout": timeout_s}
        try:
            with self._transport().stream(
                path, method="GET", params=dict(params or {}), request_options=options
            ) as answer:
                yield Stream(answer.status_code, answer.headers, answer.iter_bytes())
        except (ApiError, httpx.HTTPError) as error:
            raise StudioError(f"Label Studio at {self.url} does not answer: {type(error).__name__} {error}") from error

    def _send(self, path: str, request: Mapping[str, Any]) -> httpx.Response:
        began, status = time.perf_counter(), 0
        try:
            answer: httpx.Response = self._transport().request(path, **request)
            status = answer.status_code
            return answer
        except ApiError as error:  # where a personal token is changed for an access token
            status = error.status_code or 0
            raise StudioError(_refused(str(error.body)), status=status) from error
        except httpx.HTTPError as error:
            raise StudioError(
                f"Label Studio at {self.url} cannot be reached: {type(error).__name__} {error}; is it running, and "
                "LABELLOOP_STUDIO_URL right?"
            ) from error
        finally:
            if self._on_call:
                self._on_call(f"{request['method']} {re.sub('[0-9]+', 'N', path)}", time.perf_counter() - began, status)

    def _transport(self) -> Any:
        """The SDK's, which renews access tokens by itself; its whole client takes two seconds to import."""
        if self._wrapper is None:
            self._wrapper = SyncClientWrapper(
                base_url=self.url, api_key=self._token, timeout=self._timeout_s, httpx_client=self._client
            )
        return self._wrapper.httpx_client

    def _was_replaced(self) -> bool:
        fresh = self._reread() if self._reread else self._token
        if fresh == self._token:
            return False
        self._token, self._wrapper = fresh, None
        return True


def _json(answer: httpx.Response, path: str) -> Any:
    return json_of(answer, path) if answer.content else {}


def _checked(answer: httpx.Response, request: Mapping[str, Any], path: str) -> httpx.Response:
    if answer.status_code == 401:
        raise StudioError(_refused(answer.text), status=401)
    if answer.status_code >= 400:
        raise refusal(answer, request["method"], path, request["params"])
    return answer


def _refused(text: str) -> str:
    if "legacy token authentication has been disabled" in text:
        return (
            "Label Studio does not accept legacy tokens: allow them under Organization > Access Token Settings, or put "
            "a personal access token into LABELLOOP_STUDIO_TOKEN"
        )
    return (
        "Label Studio does not accept the token: put a valid access token into LABELLOOP_STUDIO_TOKEN (Account & "
        f"Settings > Personal Access Token). It said: {message_in(text)[:200]}"
    )
