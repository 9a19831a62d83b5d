"""What is fetched from a real HTTP server, and what is not, wherever it redirects to and however slowly it answers."""

from __future__ import annotations

import gzip
import ipaddress
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote

import pytest

from labelloop.errors import ImageUnreadableError, SourceAwayError
from labelloop.studio.client import Studio
from sync.images.fetch import Fetcher
from sync.images.hosts import Address, parse_hosts
from sync.images.web import Web

BODY = b"an image, by its looks" * 10


class Handler(BaseHTTPRequestHandler):
    """Answers by path."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str]]  # (Host header, path)

    def do_GET(self) -> None:
        self.server.asked.append((self.headers["Host"], self.path))  # type: ignore[attr-defined]
        self.server.tokens.append(self.headers["Authorization"])  # type: ignore[attr-defined]
        path = self.path.partition("?")[0]
        if path.startswith("/status/"):
            self._answer(int(path.rsplit("/", 1)[-1]), b"no")
        elif path.startswith("/to/"):
            self._answer(302, b"", Location=self.path.removeprefix("/to/"))
        elif path == "/tasks/1/resolve/":
            self._answer(303, b"", Location=parse_qs(self.path.partition("?")[2])["fileuri"][0])
        elif path.startswith("/data/upload/") and path.rsplit("/", 1)[-1].isdigit():
            self._answer(int(path.rsplit("/", 1)[-1]), b"no")
        elif path == "/loop":
            self._answer(301, b"", Location="/loop")
        elif path == "/packed":
            self._answer(200, gzip.compress(BODY), **{"Content-Encoding": "gzip"})
        elif path == "/chunks":
            self._chunks()
        elif path == "/lie":
            self.send_response(200)
            self.send_header("Content-Length", "99999999999")
            self.end_headers()
        elif path == "/drip":
            self._drip()
        else:
            self._answer(200, BODY, ETag='"abc"', **{"Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"})

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _chunks(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for _ in range(10_000):
                self.wfile.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
        except OSError:  # the reader has had enough
            self.close_connection = True

    def _drip(self) -> None:
        try:
            for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"y" * 1000:
                self.wfile.write(bytes([byte]))
                time.sleep(0.05)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    made.asked, made.tokens = [], []  # type: ignore[attr-defined]
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join(timeout=5)


@pytest.fixture
def url(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def web(*words: str, private: bool = False, **options: object) -> Web:
    return Web(parse_hosts(words, private=private), **options)  # type: ignore[arg-type]


def listed(url: str, **options: object) -> Web:
    return web(url.removeprefix("http://"), **options)  # type: ignore[arg-type]


def test_an_image_comes_with_what_its_server_says_of_it(url: str) -> None:
    found = listed(url).get(f"{url}/ä b.png?x=1&y=%20#part")
    assert found.data == BODY
    assert (found.etag, found.modified) == ('"abc"', "Wed, 01 Jan 2025 00:00:00 GMT")


def test_what_is_not_listed_is_never_asked(url: str, server: ThreadingHTTPServer) -> None:
    for other in (web(), web("images.example.com"), web("127.0.0.1"), web("127.0.0.1:1")):
        with pytest.raises(ImageUnreadableError, match="LABELLOOP_IMAGE_HOSTS"):
            other.get(f"{url}/a.png")
    assert server.asked == []  # type: ignore[attr-defined]


def test_a_redirect_is_followed_where_it_is_listed(url: str) -> None:
    assert listed(url).get(f"{url}/to//a.png").data == BODY
    assert listed(url).get(f"{url}/to/{url}/a.png").data == BODY


@pytest.mark.parametrize(
    "elsewhere",
    ["http://169.254.169.254/latest/meta-data", "http://127.0.0.1:1/", "http://localhost/", "file:///etc/passwd",
     "gopher://127.0.0.1/", "//127.0.0.1:1/a", "http://[::1]/"],
)  # fmt: skip
def test_a_redirect_elsewhere_is_refused(url: str, server: ThreadingHTTPServer, elsewhere: str) -> None:
    with pytest.raises(ImageUnreadableError):
        listed(url).get(f"{url}/to/{elsewhere}")
    assert len(server.asked) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("elsewhere", ["http://[::1", "//[", "http://a:b/", "http://\\x/", "http://0xa9fea9fe/"])
def test_a_redirect_to_what_is_no_address_is_refused_in_words(url: str, elsewhere: str) -> None:
    with pytest.raises(ImageUnreadableError, match=r"no address|no http|not allowed"):
        listed(url).get(f"{url}/tasks/1/resolve/?fileuri={quote(elsewhere, safe='')}")


def test_endless_redirects_end(url: str, server: ThreadingHTTPServer) -> None:
    with pytest.raises(ImageUnreadableError, match="redirects more than 5 times"):
        listed(url).get(f"{url}/loop")
    assert len(server.asked) == 6  # type: ignore[attr-defined]


def test_a_name_is_resolved_once_checked_and_connected_to_as_it_was(
    url: str, server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = server.server_address[1]
    asked: list[str] = []

    def resolver(host: str, _port: int) -> list[Address]:
        asked.append(host)
        return [ipaddress.ip_address("127.0.0.1")]

    def again(*_: object, **__: object) -> object:
        raise AssertionError("resolved a second time")

    word, address = f"images.example.com:{port}", f"http://images.example.com:{port}/a.png"
    with pytest.raises(ImageUnreadableError, match=r"leads to 127\.0\.0\.1, which is not public"):
        web(word, resolver=resolver).get(address)
    assert server.asked == []  # type: ignore[attr-defined]
    asked.clear()
    original = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **k: again() if host != "127.0.0.1" else original(host, *a, **k)
    )
    assert web(word, private=True, resolver=resolver).get(address).data == BODY
    assert asked == ["images.example.com"]
    assert server.asked == [(word, "/a.png")]  # type: ignore[attr-defined]


def test_one_private_address_among_public_ones_is_enough_to_refuse(server: ThreadingHTTPServer) -> None:
    both = [ipaddress.ip_address("93.184.216.34"), ipaddress.ip_address("127.0.0.1")]
    with pytest.raises(ImageUnreadableError, match="not public"):
        web("images.example.com", resolver=lambda _host, _port: list(both)).get("http://images.example.com/a.png")


def test_a_second_address_is_tried_where_the_first_does_not_answer(server: ThreadingHTTPServer) -> None:
    port = server.server_address[1]
    both = [ipaddress.ip_address("127.0.0.2"), ipaddress.ip_address("127.0.0.1")]  # the server listens on the second
    found = web(f"nas:{port}", private=True, resolver=lambda _host, _port: list(both))
    assert found.get(f"http://nas:{port}/a.png").data == BODY


@pytest.mark.parametrize("path", ["/chunks", "/lie"])
def test_what_is_too_large_is_not_read_to_its_end(url: str, path: str) -> None:
    began = time.monotonic()
    with pytest.raises(ImageUnreadableError, match="more than 10,000 bytes"):
        listed(url, max_bytes=10_000).get(url + path)
    assert time.monotonic() - began < 5


def test_a_server_that_drips_is_given_up(url: str) -> None:
    began = time.monotonic()
    with pytest.raises(SourceAwayError):
        listed(url, total_s=1.0).get(f"{url}/drip")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("status", [401, 403, 404, 410, 400, 204])
def test_some_refusals_are_for_good(url: str, status: int) -> None:
    with pytest.raises(ImageUnreadableError, match=f"answers {status}"):
        listed(url).get(f"{url}/status/{status}")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_others_may_pass(url: str, status: int) -> None:
    with pytest.raises(SourceAwayError, match=f"answers {status}"):
        listed(url).get(f"{url}/status/{status}")


def test_a_packed_answer_is_not_unpacked(url: str) -> None:
    with pytest.raises(ImageUnreadableError, match="comes packed"):
        listed(url).get(f"{url}/packed")


def test_a_closed_port_and_an_unknown_name_may_pass() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(SourceAwayError):
            web(f"127.0.0.1:{port}").get(f"http://127.0.0.1:{port}/a.png")
    with pytest.raises(SourceAwayError, match="cannot be resolved"):
        web("no-such-host.invalid").get("http://no-such-host.invalid/a.png")


def test_a_certificate_must_be_for_the_name_although_the_address_is_connected_to(
    server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=images.example.com",
         "-addext", "subjectAltName=DNS:images.example.com", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    port = server.server_address[1]

    def ask(host: str, trusted: ssl.SSLContext) -> bytes:
        found = web(f"{host}:{port}", private=True, resolver=lambda _h, _p: [ipaddress.ip_address("127.0.0.1")])
        found._tls = trusted
        return found.get(f"https://{host}:{port}/a.png").data

    trusted = ssl.create_default_context(cafile=str(certificate))
    assert ask("images.example.com", trusted) == BODY
    with pytest.raises(SourceAwayError):
        ask("other.example.com", trusted)
    with pytest.raises(SourceAwayError):
        ask("images.example.com", ssl.create_default_context())


# --- what lies in Label Studio


@pytest.fixture
def studio(url: str) -> Iterator[Studio]:
    made = Studio(url, "a" * 40)
    yield made
    made.close()


def test_an_upload_is_read_under_our_account(studio: Studio, server: ThreadingHTTPServer) -> None:
    fetch = Fetcher(studio, web())
    assert fetch("/data/upload/1/0a1b-a b.png").data == BODY
    assert fetch("/data/upload/1/0a1b-a%20b.png").data == BODY
    assert fetch("/data/local-files/?d=cats/1.png").etag == '"abc"'
    assert {path for _, path in server.asked} == {"/data/upload/1/0a1b-a%20b.png", "/data/local-files/?d=cats%2F1.png"}  # type: ignore[attr-defined]
    assert set(server.tokens) == {f"Token {'a' * 40}"}  # type: ignore[attr-defined]


def test_where_label_studio_sends_us_to_the_allow_list_counts_and_our_token_stays_here(
    studio: Studio, url: str, server: ThreadingHTTPServer
) -> None:
    address = f"/tasks/1/resolve/?fileuri={quote(url + '/signed.png', safe='')}"
    with pytest.raises(ImageUnreadableError, match="LABELLOOP_IMAGE_HOSTS"):
        Fetcher(studio, web())(address)
    assert Fetcher(studio, listed(url))(address).data == BODY
    assert server.tokens == [f"Token {'a' * 40}"] * 2 + [None]  # type: ignore[attr-defined]


def test_a_page_of_label_studio_is_no_image(studio: Studio) -> None:
    with pytest.raises(ImageUnreadableError, match="a page of its own"):
        Fetcher(studio, web())("/tasks/1/resolve/?fileuri=/user/login/")


@pytest.mark.parametrize(("status", "error"), [(404, ImageUnreadableError), (403, ImageUnreadableError),
                                               (500, SourceAwayError), (401, SourceAwayError)])  # fmt: skip
def test_what_label_studio_refuses(studio: Studio, status: int, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"answers {status}"):
        Fetcher(studio, web())(f"/data/upload/1/{status}")


def test_an_upload_that_is_too_large_or_a_server_that_is_away(studio: Studio, server: ThreadingHTTPServer) -> None:
    with pytest.raises(ImageUnreadableError, match="more than 10 bytes"):
        Fetcher(studio, web(), max_bytes=10)("/data/upload/1/a.png")
    server.shutdown()
    server.server_close()
    with pytest.raises(SourceAwayError, match="does not answer"):
        Fetcher(studio, web())("/data/upload/1/a.png")
