"""`StudioApi` behind HTTP, with the errors of Label Studio 1.23.2: for commands that only know an address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qsl, urlsplit

from labelloop.errors import StudioError
from tests.fakes.studio_api import StudioApi


@contextmanager
def serving(api: StudioApi, token: str) -> Iterator[str]:
    """The address, while the block lasts. ``/html`` and ``/json`` below it answer as no Label Studio does."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            if parts.path.startswith("/html/"):
                self.say(200, b"<html><title>Sign in</title></html>", "text/html")
            elif parts.path.startswith("/json/"):
                self.say(200, b"{}")
            elif self.headers.get("Authorization") != f"Token {token}":
                self.say(401, json.dumps({"detail": "Invalid token."}).encode())
            else:
                self.ask(parts.path.strip("/"), dict(parse_qsl(parts.query)), json.loads(body) if body else None)

        def ask(self, path: str, params: dict[str, str], body: object) -> None:
            query = {k: int(v) if v.isdigit() else v for k, v in params.items()}
            try:
                if "project" in query and path == "api/tasks":
                    api.call("GET", f"api/projects/{query['project']}", params={}, json=None)  # 404 where it is gone
                reply, status = api.call(self.command, path, params=query, json=body), 200
            except StudioError as error:
                status = error.status or 500
                reply = {"id": "5c2a", "status_code": status, "version": "1.23.2", "exc_info": None,
                        "detail": "No Project matches the given query." if status == 404 else str(error)}  # fmt: skip
            self.say(status, json.dumps(reply).encode())

        def say(self, status: int, body: bytes, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
