"""A real gunicorn that is told to stop: not ready at once, closed a while later, nothing dropped on the way."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from flask import Flask

from embedded.ports import LOOPBACK, pick_port
from labelloop.config.settings import load_settings
from labelloop.errors import ImageUnreadableError
from labelloop.objects.storage import MemoryStore
from labelloop.store.projects import ProjectStore
from ml_backend.app import make_app
from ml_backend.auth import AccessGate
from ml_backend.backend import Backend
from ml_backend.drain import DrainingWorker
from ml_backend.live import LiveModels
from ml_backend.metrics import Metrics
from ml_backend.predict import Predictor
from ml_backend.projects import Directory

DRAIN_S = 3.0
SLOW_S = 5.0  # longer than the drain


class Quick(DrainingWorker):
    """The worker of the containers, less patient."""

    drain_s = DRAIN_S


class NoImages:
    """There are none."""

    def read(self, uri: str) -> tuple[bytes, str]:
        raise ImageUnreadableError(f"{uri} does not exist")


def slow_app() -> Flask:
    """The backend of a deployment without projects (so torch is never imported), with one request that takes long."""
    store, metrics = MemoryStore(), Metrics()
    directory = Directory(ProjectStore(store, "main"))
    live = LiveModels(store, directory.all, metrics)
    backend = Backend(directory, live, Predictor(NoImages(), metrics), metrics)
    backend.start()
    atexit.register(backend.stop)
    app = make_app(backend, AccessGate(load_settings({})))

    @app.get("/slow")
    def slow() -> str:
        time.sleep(SLOW_S)
        return "done"

    return app


@pytest.fixture
def served() -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    bind = f"{LOOPBACK}:{pick_port()}"
    worker, app = "tests.integration.test_drain.Quick", "tests.integration.test_drain:slow_app()"
    argv = ["gunicorn", "--worker-class", worker, "--threads", "8", "--bind", bind, "--no-control-socket", app]
    process = subprocess.Popen([sys.executable, "-m", *argv])
    with httpx.Client(base_url=f"http://{bind}", timeout=10, headers={"Connection": "close"}) as client:
        try:
            yield process, client
        finally:
            process.kill()
            process.wait()


def ready(client: httpx.Client) -> int:
    try:
        return client.get("/ready").status_code
    except httpx.TransportError:
        return 0


def wait_for(client: httpx.Client, status: int) -> None:
    end = time.monotonic() + 120
    while ready(client) != status:
        assert time.monotonic() < end, f"/ready never came to {status}"
        time.sleep(0.05)


def test_it_says_so_goes_on_and_finishes(served: tuple[subprocess.Popen[bytes], httpx.Client]) -> None:
    process, client = served
    wait_for(client, 200)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(client.get, "/slow")
        time.sleep(0.2)
        begun = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        wait_for(client, 503)
        assert client.get("/health").status_code == 200, "whoever still comes is answered"
        wait_for(client, 0)
        assert time.monotonic() - begun > DRAIN_S, "it closed before anybody could notice"
        assert under_way.result().text == "done"
    assert process.wait(timeout=60) == 0
