"""What the S3 client does on the wire."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from labelloop.config.settings import load_settings
from labelloop.errors import StorageError
from labelloop.objects.s3_client import s3_client
from labelloop.objects.storage import S3Store


@contextmanager
def server(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Answers every request's head with ``answer`` and hangs up; its address, and what it was sent."""
    heard: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            heard.append(self.request.recv(65536))
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as tcp:
        threading.Thread(target=tcp.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{tcp.server_address[1]}", heard
        tcp.shutdown()


def from_thread(work: Callable[[], object], seconds: float) -> None:
    """Raise what ``work`` raises; TimeoutError where it takes longer."""
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # handed on
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    future.result(seconds)


def test_a_server_that_breaks_off_in_a_continue_is_an_error_and_no_hang() -> None:
    with server(b"HTTP/1.1 100 Continue\r\n") as (url, heard):
        keys = {"LABELLOOP_S3_ACCESS_KEY": "a", "LABELLOOP_S3_SECRET_KEY": "b"}
        settings = load_settings({"LABELLOOP_S3_ENDPOINT": url, **keys})
        store = S3Store(s3_client(settings), "labelloop")
        with pytest.raises(StorageError):  # in a thread: it would take the test run along
            from_thread(lambda: store.put("key", b"body"), 30)
    assert heard
    assert not any(b"expect:" in request.lower() for request in heard)
