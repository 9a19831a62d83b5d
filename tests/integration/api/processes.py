"""A real backend and the API's front door before it, as processes, and a client of both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from embedded.ports import LOOPBACK, pick_port
from labelloop.config.settings import load_settings
from labelloop.objects.s3_client import s3_client
from labelloop.objects.storage import S3Store
from labelloop.records.api_keys import Scope
from labelloop.store.api_keys import ApiKeyStore
from tests.integration.worlds.serving import Served, environment, started, wait_for
from tests.unit.worlds.backend import picture


@dataclass
class Running:
    """Backend and front door; the model answers `dog`."""

    served: Served
    process: subprocess.Popen[bytes]
    url: str
    keys: ApiKeyStore
    client: httpx.Client

    def whole_key(self, *scopes: Scope, **more: Any) -> str:
        """A key that counts by now, in both processes; for everything where no scope is named."""
        whole = self.keys.add("test", scopes or tuple(Scope), by="anna", **more).whole
        headers = self.header(whole)
        wait_for(lambda: self.client.get("/v1/nothing", headers=headers).status_code == 404, 10)
        wait_for(lambda: self.served.client.post("/v1/nothing", headers=headers, auth=no_auth).status_code == 404, 10)
        return whole

    def key(self, *scopes: Scope, **more: Any) -> dict[str, str]:
        """Its header."""
        return self.header(self.whole_key(*scopes, **more))

    def header(self, whole: str) -> dict[str, str]:
        """As a program sends it."""
        return {"Authorization": f"Bearer {whole}"}

    def classify(self, headers: dict[str, str], data: bytes | None = None) -> httpx.Response:
        """One file."""
        return self.client.post("/v1/classify", headers=headers, files={"image": ("a.png", data or picture(1))})


def no_auth(request: httpx.Request) -> httpx.Request:
    """Leaves the header as it is: the client's own password is for Label Studio's contract."""
    return request


@contextmanager
def running_api(s3_endpoint: str, redis_url: str, folder: Path) -> Iterator[Running]:
    """Stopped at the end."""
    url = f"http://{LOOPBACK}:{pick_port()}"
    env = {**environment(s3_endpoint, redis_url), "LABELLOOP_API_URL": url}
    with started(env, folder / "backend.log") as served:
        served.deploy(served.world.add(served.world.backbone(), 1))
        settings = load_settings(env)
        keys = ApiKeyStore(S3Store(s3_client(settings), settings.state_bucket))
        process = _front_door(env, url, folder / "api.log")
        try:
            with httpx.Client(base_url=url, timeout=40, limits=httpx.Limits(max_connections=64)) as client:
                wait_for(lambda: _ready(client), 60)
                yield Running(served, process, url, keys, client)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def _front_door(env: dict[str, str], url: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--config", "python:api.serve", "--worker-class",
             "ml_backend.drain.BufferingWorker", "--bind", url.removeprefix("http://"), "--no-control-socket",
             "api.app:create_app()"],
            env={**os.environ, **env}, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/ready").status_code == 200
    except httpx.TransportError:
        return False
