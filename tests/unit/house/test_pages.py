"""What a web page may ask of our services and of the embedded Label Studio: their own pages all, others nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from werkzeug.datastructures import Headers

from embedded.services import STUDIO_SITE
from labelloop.web.browsers import asked_by_page, asked_from_elsewhere, is_foreign_name
from labelloop.web.exposition import metrics_alone

sys.path.append(str(STUDIO_SITE))
from labelloop_pages import from_elsewhere

HOST = "127.0.0.1:8080"


@pytest.mark.parametrize(("headers", "refused"), [
    ({}, False),  # a program
    ({"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, False),
    ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, False),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, False),  # a link
    ({"Origin": "http://evil.example"}, True),
    ({"Origin": "http://127.0.0.1:9999"}, True),  # another port: to a cookie the same site
    ({"Origin": "http://localhost:8080"}, True),
    ({"Origin": "null"}, True),
    ({"Origin": ""}, True),
    ({"Origin": f"http://{HOST}.evil.example"}, True),
    ({"Origin": f"http://{HOST}@evil.example"}, True),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, True),
    ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, True),
    ({"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate",
      "Sec-Fetch-Dest": "document"}, True),  # a form that is sent
])  # fmt: skip
@pytest.mark.parametrize("rule", [from_elsewhere, asked_from_elsewhere])  # Label Studio's and the dashboard's
def test_own_pages_and_programs_are_heard(
    rule: Callable[[Any, str], bool], headers: dict[str, str], refused: bool
) -> None:
    assert rule(Headers(headers), HOST) is refused


@pytest.mark.parametrize(("origin", "site", "page"), [
    (None, None, False), (None, "none", False), ("http://evil.example", None, True), ("null", None, True),
    ("", None, True), (None, "cross-site", True), (None, "same-site", True), (None, "same-origin", True),
])  # fmt: skip
def test_a_page_is_told_from_a_program(origin: str | None, site: str | None, page: bool) -> None:
    assert asked_by_page(origin, site) is page


@pytest.mark.parametrize(("method", "path", "headers", "status"), [
    ("GET", "/metrics", {}, "200 OK"),
    ("GET", "/", {}, "404 Not Found"),
    ("GET", "/metrics/x", {}, "404 Not Found"),
    ("GET", "/favicon.ico", {}, "404 Not Found"),
    ("OPTIONS", "/metrics", {}, "404 Not Found"),
    ("POST", "/metrics", {}, "404 Not Found"),
    ("GET", "/metrics", {"HTTP_ORIGIN": "http://evil.example"}, "403 Forbidden"),
    ("GET", "/metrics", {"HTTP_SEC_FETCH_SITE": "cross-site"}, "403 Forbidden"),
    ("GET", "/metrics", {"HTTP_HOST": "127.0.0.1:9464"}, "200 OK"),
    ("GET", "/metrics", {"HTTP_HOST": "evil.example:9464"}, "403 Forbidden"),
])  # fmt: skip
def test_a_metrics_port_answers_one_question(method: str, path: str, headers: dict[str, str], status: str) -> None:
    statuses: list[str] = []

    def figures(_environ: Any, start: Any) -> Iterable[bytes]:
        start("200 OK", [])
        return [b"figures"]

    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, **headers}
    body = list(metrics_alone(figures, local=True)(environ, lambda line, _headers: statuses.append(line)))
    assert (statuses, body) == ([status], [b"figures"] if status.startswith("200") else [])


@pytest.mark.parametrize(("host", "foreign"), [
    ("127.0.0.1:9090", False), ("[::1]:9090", False), ("localhost", False), ("10.1.2.3:9090", False), ("", False),
    ("backend:9090", False), ("gateway.internal:9090", False), ("ml-backend.labelloop.svc:9090", False),
    ("ml-backend.labelloop.svc.cluster.local.", False), ("labels.example.com", False), ("LABELS.example.com.", False),
    ("evil.example", True), ("evil.example:9090", True), ("127.0.0.1.evil.example", True),
    ("labels.example.com.x", True), ("localhost.evil.example", True), ("127.0.0.1@evil.example", True),
    ("svc.evil", True), ("[::1", True),
])  # fmt: skip
def test_a_foreign_name_that_leads_here_is_told_from_ours(host: str, foreign: bool) -> None:
    assert is_foreign_name(host, "labels.example.com") is foreign
