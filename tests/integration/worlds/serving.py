"""A real gunicorn with the backend, the world behind it, and what a test does with both."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from embedded.loop import BACKEND_MEMORY
from embedded.ports import LOOPBACK, pick_port
from labelloop.config.settings import load_settings
from labelloop.config.shares import SplitShares
from labelloop.objects.s3_client import s3_client
from labelloop.objects.storage import S3Store
from labelloop.queue.channels import DEPLOY_CHANNEL, publish
from labelloop.queue.connection import connect
from labelloop.records.images import Split
from labelloop.records.versions import BackboneRecord, Version
from labelloop.rules.split import group_of, shown_blind, split_of
from tests.integration.conftest import KEYS
from tests.unit.worlds.backend import World, picture

PASSWORD = "letmein"
WORKER = "ml_backend.drain.BufferingWorker"
TASKS = 6


class Served:
    """A running backend, the world behind it, and a client."""

    def __init__(self, env: dict[str, str], log: Path, *, processes: int = 1) -> None:
        settings = load_settings(env)
        s3 = s3_client(settings)
        for bucket in (settings.state_bucket, settings.image_buckets[0]):
            s3.create_bucket(Bucket=bucket)
        self.redis = connect(settings.redis_url)
        self.world = World(S3Store(s3, settings.state_bucket))
        self.bucket = settings.image_buckets[0]
        self.images = S3Store(s3, self.bucket)
        self.tasks = [{"id": i, "data": {"image": f"s3://{self.bucket}/animals/{i}.png"}} for i in self._upload()]
        self.url = env["LABELLOOP_BACKEND_URL"]
        self.auth = ("labelloop", PASSWORD)
        self.client = httpx.Client(base_url=self.url, auth=self.auth, timeout=30)
        bind = self.url.removeprefix("http://")
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--worker-class", WORKER, "--bind", bind,
                 "--workers", str(processes),
                 "ml_backend.app:create_app()"],
                env={**os.environ, **BACKEND_MEMORY, **env}, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip

    def deploy(self, version: Version) -> None:
        self.world.deploy(version)
        publish(self.redis, DEPLOY_CHANNEL, self.world.record.key)

    def predict(self, client: httpx.Client | None = None) -> list[dict[str, Any]]:
        body = {
            "tasks": self.tasks,
            "project": self.world.record.reference,
            "label_config": self.world.record.label_config,
        }
        answer = (client or self.client).post("/predict", json=body)
        assert answer.status_code == 200, answer.text
        results: list[dict[str, Any]] = answer.json()["results"]
        return results

    @property
    def basic(self) -> str:
        """The value of the header that lets a client in."""
        return "Basic " + base64.b64encode(":".join(self.auth).encode()).decode()

    def version(self) -> str:
        return str(self.predict()[0]["model_version"])

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = self.client.get("/health").json()["projects"].get(self.world.record.key, {})
        return facts

    def stop(self) -> None:
        self.client.close()
        self.redis.close()
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
        self.process.wait(timeout=30)

    def _upload(self) -> list[int]:
        """The first few pictures that are not blind."""
        groups = {i: group_of(picture(i)) for i in range(100)}
        share = self.world.record.config.queue.blind
        seeds = [i for i, g in groups.items()
                 if split_of(g, SplitShares()) is Split.TRAIN and not shown_blind(g, share)][:TASKS]  # fmt: skip
        for seed in seeds:
            self.images.put(f"animals/{seed}.png", picture(seed))
        return seeds


def wait_for(what: Callable[[], bool], seconds: float) -> float:
    begun = time.monotonic()
    while not what():
        assert time.monotonic() - begun < seconds, "it did not happen in time"
        time.sleep(0.02)
    return time.monotonic() - begun


def wait_for_version(served: Served, name: str, seconds: float) -> float:
    return wait_for(lambda: served.version() == name, seconds)


def environment(s3_endpoint: str, redis_url: str) -> dict[str, str]:
    return {
        "LABELLOOP_S3_ENDPOINT": s3_endpoint,
        **KEYS,
        "LABELLOOP_STATE_BUCKET": f"state-{uuid.uuid4().hex[:12]}",
        "LABELLOOP_IMAGE_BUCKETS": f"images-{uuid.uuid4().hex[:12]}",
        "LABELLOOP_REDIS_URL": redis_url,
        "LABELLOOP_BACKEND_URL": f"http://{LOOPBACK}:{pick_port()}",
        "LABELLOOP_BACKEND_PASSWORD": PASSWORD,
    }


def healthy(served: Served) -> bool:
    try:
        return served.client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def started(env: dict[str, str], log: Path, *, processes: int = 1) -> Iterator[Served]:
    served = Served(env, log, processes=processes)
    try:
        wait_for(lambda: healthy(served), 60)
        yield served
    finally:
        served.stop()


def next_version(served: Served, backbone: BackboneRecord, number: int) -> Version:
    """Version ``number``, whose answer follows from its number."""
    version = served.world.add(backbone, answer=number % 3)
    assert version.number == number
    return version
