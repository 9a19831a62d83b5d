"""Requests to Label Studio: a replaced token counts at the next refusal, and refusals say what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from labelloop.errors import StudioError
from labelloop.studio.http import StudioHttp

LEGACY_OFF = "Authentication token no longer valid: legacy token authentication has been disabled for this organization"


class Server:
    """A Label Studio that knows one legacy token."""

    def __init__(self) -> None:
        self.token, self.detail = "one", "Invalid token."
        self.asked: list[tuple[str, str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                token = (self.headers.get("Authorization") or "").removeprefix("Token ")
                server.asked.append((self.command, self.path, token))
                right = token == server.token
                body = json.dumps({"done": True} if right else {"detail": server.detail}).encode()
                self.send_response(200 if right else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer

            def log_message(self, *_: object) -> None:
                """Be quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = Thread(target=server.http.serve_forever, daemon=True)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


def test_a_replaced_token_is_read_again_and_the_request_repeated_once(server: Server) -> None:
    heard: list[tuple[str, int]] = []
    http = StudioHttp(
        server.url, "one", reread=lambda: "two", on_call=lambda call, _seconds, status: heard.append((call, status))
    )
    assert http.call("GET", "api/projects/7/")["done"]
    server.token = "two"
    assert http.call("POST", "api/tasks/12/annotations/", json={})["done"]
    assert http.call("GET", "api/projects/7/")["done"]
    assert [(method, token) for method, _, token in server.asked] == [
        ("GET", "one"), ("POST", "one"), ("POST", "two"), ("GET", "two"),
    ]  # fmt: skip
    assert heard[1:3] == [("POST api/tasks/N/annotations/", 401), ("POST api/tasks/N/annotations/", 200)]
    http.close()


def test_a_refused_token_that_nobody_replaced_is_an_error_at_once(server: Server) -> None:
    http = StudioHttp(server.url, "dead", reread=lambda: "dead")
    with pytest.raises(StudioError, match="LABELLOOP_STUDIO_TOKEN") as caught:
        http.call("GET", "api/projects/7/")
    assert caught.value.status == 401
    assert len(server.asked) == 1
    http.close()


def test_a_legacy_token_that_was_switched_off_says_how_to_switch_it_on(server: Server) -> None:
    server.detail = LEGACY_OFF
    http = StudioHttp(server.url, "dead")
    with pytest.raises(StudioError, match="Organization > Access Token Settings"):
        http.call("GET", "api/projects/7/")
    http.close()


def test_the_kind_of_a_token_is_seen_by_its_form() -> None:
    assert StudioHttp("http://x", "0" * 40).token_kind == "legacy"
    assert StudioHttp("http://x", "eyJh.eyJ0.c2ln").token_kind == "personal"


def test_a_server_that_is_away_is_heard_of_too() -> None:
    heard: list[int] = []
    http = StudioHttp("http://127.0.0.1:9", "x", on_call=lambda _call, _seconds, status: heard.append(status))
    with pytest.raises(StudioError, match="cannot be reached"):
        http.call("POST", "api/projects/")
    assert heard == [0]
    http.close()
