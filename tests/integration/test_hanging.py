"""A real gunicorn among clients and stores that hang: /health is quick, refusals come at once, others go on.

The times that Label Studio gives are the limits here, so that a busy machine fails no test; the benchmark has p99.
"""

from __future__ import annotations

import atexit
import base64
import json
import re
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from flask import Flask

from embedded.ports import LOOPBACK, pick_port
from labelloop.config.settings import load_settings
from labelloop.objects.storage import MemoryStore
from labelloop.store.projects import ProjectStore
from ml_backend.app import make_app
from ml_backend.auth import AccessGate
from ml_backend.backend import Backend
from ml_backend.drain import CONNECTIONS, BufferingWorker
from ml_backend.entrance import front
from ml_backend.entrance.door import HINTS, MIB, VIEWS
from ml_backend.live import LiveModels
from ml_backend.metrics import Metrics
from ml_backend.places import PLACES
from ml_backend.predict import Predictor
from ml_backend.projects import LOOKUP_S, Directory
from tests.integration.test_drain import NoImages
from tests.integration.worlds.hanging import (
    address,
    connections,
    get_s,
    health_ms,
    post,
    repeating,
    stopped,
    stores,
    wait,
)
from tests.integration.worlds.serving import Served, environment, next_version, started
from tests.unit.worlds.backend import World

PASSWORD = "letmein"
BASIC = "Basic " + base64.b64encode(f"labelloop:{PASSWORD}".encode()).decode()
LARGE = 20_000_000  # bytes of an answer; more than the system's buffers hold
SECONDS = 1.5
HEALTH_S, SETUP_S, WEBHOOK_S = 1.0, 3.0, 1.0  # what Label Studio gives
QUICK_MS = 50.0
Scene = tuple[Served, subprocess.Popen[bytes], subprocess.Popen[bytes]]


class Impatient(BufferingWorker):
    """With limits that a test can wait for."""

    def run(self) -> None:
        front.HEADER_S = front.IDLE_S = front.LINGER_S = 1.5
        super().run()


def small_app() -> Flask:
    """The backend of a deployment without projects, so that torch is never imported."""
    store, metrics = MemoryStore(), Metrics()
    directory = Directory(ProjectStore(store, "main"))
    live = LiveModels(store, directory.all, metrics)
    backend = Backend(directory, live, Predictor(NoImages(), metrics), metrics)
    backend.start()
    atexit.register(backend.stop)
    app = make_app(backend, AccessGate(load_settings({"LABELLOOP_BACKEND_PASSWORD": PASSWORD})))

    @app.get("/large")
    def large() -> str:
        return "x" * LARGE

    return app


@pytest.fixture(scope="module")
def small() -> Iterator[str]:
    bind = f"{LOOPBACK}:{pick_port()}"
    worker, app = f"{__name__}.Impatient", f"{__name__}:small_app()"
    argv = ["gunicorn", "--worker-class", worker, "--bind", bind, "--no-control-socket", app]
    process = subprocess.Popen([sys.executable, "-m", *argv])
    try:
        wait(lambda: get_s(f"http://{bind}") < 10, 60)
        yield f"http://{bind}"
    finally:
        process.kill()
        process.wait()


def is_quick(url: str, seconds: float = SECONDS) -> None:
    found = health_ms(url, seconds)
    assert statistics.median(found) <= QUICK_MS
    assert max(found) < 1000 * HEALTH_S


def head(path: str, length: int, *more: str, basic: str = BASIC, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {length}", f"Authorization: {basic}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


def said(made: socket.socket, until: bytes = b"\r\n\r\n") -> bytes:
    found = b""
    while until not in found and (piece := made.recv(65536)):
        found += piece
    return found


def connect(url: str) -> socket.socket:
    return socket.create_connection(address(url), timeout=10)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param(head("/predict", 1_000_000, basic="Basic x"), b"x", id="bodies without a password"),
        pytest.param(head("/predict", 1_000_000), b"x", id="bodies with a password"),
        pytest.param(head("/webhook", 1_000_000, basic=""), b"x", id="webhooks"),
        pytest.param(b"GET /health HTTP/1.1\r\n", b"x", id="heads"),
        pytest.param(b"POST /webhook HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", id="chunks"),
        pytest.param(head("/large", 0, method="GET"), b"", id="readers"),
    ],
)
def test_health_beside_forty_slow_clients(small: str, first: bytes, then: bytes) -> None:
    assert VIEWS.threads < 40
    with connections(small, 40, first, then, every_s=0.2):
        is_quick(small)
        begun = time.monotonic()
        assert post(small, "/setup", b"{}", BASIC) == 404
        assert time.monotonic() - begun < HEALTH_S


def test_health_beside_more_idle_connections_than_there_is_room_for(small: str) -> None:
    with connections(small, CONNECTIONS + 500):
        is_quick(small)


def test_a_stranger_is_refused_before_the_body_and_can_read_that_while_still_sending(small: str) -> None:
    with connect(small) as made:
        made.sendall(head("/predict", 10 * MIB, basic=""))
        assert said(made).startswith(b"HTTP/1.1 401 labelloop: wrong or missing")
    with connect(small) as made:
        made.sendall(head("/predict", 8 * MIB, basic="") + b"x" * 8 * MIB)
        assert said(made).startswith(b"HTTP/1.1 401 ")


def test_continue_is_said_to_those_alone_whose_body_is_wanted(small: str) -> None:
    with connect(small) as made:
        made.sendall(head("/setup", 2, "Expect: 100-continue"))
        assert said(made) == b"HTTP/1.1 100 Continue\r\n\r\n"
        made.sendall(b"{}")
        assert said(made).startswith(b"HTTP/1.1 404 ")
    for refused, status in ((head("/setup", 2, "Expect: 100-continue", basic=""), b"401"),
                            (head("/setup", 10**12, "Expect: 100-continue"), b"413")):  # fmt: skip
        with connect(small) as made:
            made.sendall(refused)
            assert said(made).startswith(b"HTTP/1.1 " + status)


def test_chunks_are_put_together_and_counted(small: str) -> None:
    start = b"POST /webhook HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(small) as made:
        made.sendall(start + b"1\r\n{\r\n" + b"1\r\n}\r\n" + b"0\r\n\r\n")
        assert said(made).startswith(b"HTTP/1.1 202 ")
    with connect(small) as made:
        made.sendall(start + f"{HINTS.max_body + 9:x}\r\n".encode() + b"x" * (HINTS.max_body + 9))
        assert said(made).startswith(b"HTTP/1.1 413 ")


def test_strangers_hold_no_more_bytes_than_they_are_given(small: str) -> None:
    size = HINTS.max_body - 9
    with ExitStack() as stack:
        made = [stack.enter_context(connect(small)) for _ in range(HINTS.max_bodies // size + 1)]
        for one in made:
            one.sendall(head("/webhook", HINTS.max_body, basic="") + b"x" * size)
        refused, _, _ = select.select(made, (), (), 10)  # whose byte comes first is the kernel's choice
        assert [said(one)[:13] for one in refused] == [b"HTTP/1.1 503 "], "the others fit, to the last of them"
        assert post(small, "/setup", b"{}", BASIC) == 404, "others have bytes of their own"
    wait(lambda: post(small, "/webhook", b"{}") == 202, 5)  # those who went hold nothing


def test_requests_on_one_connection_are_answered_in_order(small: str) -> None:
    sent = [head("/health", 0, method="GET"), head("/ready", 0, method="GET")]
    with connect(small) as made:
        made.sendall(b"".join(sent) + head("/x", 0, "Connection: close", method="GET"))
        found = said(made, until=b"never")
    assert re.findall(rb"HTTP/1.1 (\d+)", found) == [b"200", b"200", b"404"]


@pytest.mark.parametrize("sent", [b"", b"GET /health HTT", head("/health", 0, method="GET"), b"\r\n\r\n"])
def test_who_says_nothing_more_is_let_go(small: str, sent: bytes) -> None:
    with connect(small) as made:
        made.sendall(sent)
        begun = time.monotonic()
        while made.recv(65536):
            pass
        assert 0.5 < time.monotonic() - begun < 8


def test_a_refusal_is_counted_like_any_answer(small: str) -> None:
    with connect(small) as made:
        made.sendall(head("/predict", 5, basic=""))
        said(made)
    with connect(small) as made:
        made.sendall(head("/metrics", 0, "Connection: close", method="GET"))
        found = said(made, until=b"never").decode()
    assert 'labelloop_backend_requests_total{endpoint="predict",status="401"}' in found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A backend with a loaded project and one without a model, and its own S3 server and Redis."""
    folder = tmp_path_factory.mktemp("hanging")
    with (
        stores(folder) as ((s3_url, s3), (redis_url, redis)),
        started(environment(s3_url, redis_url), folder / "backend.log") as served,
    ):
        served.deploy(next_version(served, served.world.backbone(), 1))
        wait(lambda: served.version() == "v1", 60)
        yield served, s3, redis


def body(world: World, tasks: list[dict[str, object]]) -> bytes:
    return json.dumps({"tasks": tasks, "project": world.record.reference, "label_config": ""}).encode()


def test_s3_that_hangs_under_forty_calls(
    world: Scene,
) -> None:
    served, s3, _ = world
    cold = World(served.world.store, number=9)
    other = body(cold, served.tasks)
    wait(lambda: post(served.url, "/predict", other, served.basic) == 200, 30)
    mine = body(served.world, served.tasks)
    schema = json.dumps({"project": served.world.record.reference, "schema": served.world.record.label_config}).encode()
    with stopped(s3), repeating(lambda: (post(served.url, "/predict", mine, served.basic), time.sleep(0.5)), 40):
        time.sleep(1.5)
        is_quick(served.url, 3.0)
        begun = time.monotonic()
        assert post(served.url, "/predict", mine, served.basic) == 503
        assert time.monotonic() - begun < LOOKUP_S + HEALTH_S
        for path, sent in (("/predict", other), ("/setup", schema)):
            begun = time.monotonic()
            assert post(served.url, path, sent, served.basic) == 200, "what is known needs no S3"
            assert time.monotonic() - begun < SETUP_S
        unknown = b'{"project": "99.1", "schema": "<View/>"}'
        begun = time.monotonic()
        assert post(served.url, "/setup", unknown, served.basic) == 503
        assert time.monotonic() - begun < SETUP_S
    wait(lambda: post(served.url, "/predict", mine, served.basic) == 200, 60)


def test_who_goes_away_leaves_no_work_behind(world: Scene) -> None:
    served, _, _ = world
    sent = body(served.world, served.tasks * 500)  # a minute of work
    with ExitStack() as stack:
        for _ in range(PLACES):
            made = stack.enter_context(connect(served.url))
            made.sendall(head("/predict", len(sent), basic=served.basic) + sent)
        mine = body(served.world, served.tasks[:1])
        wait(lambda: post(served.url, "/predict", mine, served.basic) == 503, 10)
    wait(lambda: post(served.url, "/predict", mine, served.basic) == 200, 10)


def test_redis_that_hangs_holds_up_no_webhook(
    world: Scene,
) -> None:
    served, _, redis = world
    with stopped(redis), repeating(lambda: post(served.url, "/webhook", b"{}"), 4):
        is_quick(served.url)
        for _ in range(5):
            begun = time.monotonic()
            assert post(served.url, "/webhook", b'{"action": "X"}') == 202
            assert time.monotonic() - begun < WEBHOOK_S
        assert served.version() == "v1"


@pytest.mark.parametrize("sent", [b"nonsense\r\n\r\n", b"GET /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                                  b"GET /x HTTP/1.1\r\nA: " + b"a" * 40_000, b"\x00\xff\r\n\r\n"])  # fmt: skip
def test_what_is_no_request_is_refused_in_json(small: str, sent: bytes) -> None:
    with connect(small) as made:
        made.sendall(sent)
        found = said(made, until=b"never")
    assert re.match(rb"HTTP/1.[01] 4\d\d ", found)
    assert json.loads(found.partition(b"\r\n\r\n")[2])["error"]
