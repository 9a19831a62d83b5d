"""A real gunicorn, real S3 and Valkey: versions change under load and nobody notices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.embedded.ports import LOOPBACK, pick_port
from labelloop.images import s3_client
from labelloop.queue import DEPLOY_CHANNEL, NUDGE_CHANNEL, alive, connect, publish
from labelloop.records import Bucket
from labelloop.registry import BackboneRecord, Version
from labelloop.settings import load_settings
from labelloop.split import BucketShares, bucket_of, group_of
from labelloop.storage import S3Store
from tests.unit.backend_world import CLASSES, World, picture

PASSWORD = "letmein"
CLIENTS = 4
DEPLOYS = 50
TASKS = 6


class Served:
    """A running backend, the world behind it, and a client."""

    def __init__(self, env: dict[str, str], log: Path) -> None:
        settings = load_settings(env)
        s3 = s3_client(settings)
        for bucket in (settings.state_bucket, settings.image_buckets[0]):
            s3.create_bucket(Bucket=bucket)
        self.redis = connect(settings.redis_url)
        self.world = World(S3Store(s3, settings.state_bucket))
        self._images, bucket = S3Store(s3, settings.image_buckets[0]), settings.image_buckets[0]
        self.tasks = [{"id": i, "data": {"image": f"s3://{bucket}/animals/{i}.png"}} for i in self._upload()]
        self.url = env["LABELLOOP_BACKEND_URL"]
        self.auth = ("labelloop", PASSWORD)
        self.client = httpx.Client(base_url=self.url, auth=self.auth, timeout=30)
        bind = self.url.removeprefix("http://")
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--worker-class", "gthread", "--threads", "32", "--bind", bind,
                 "ml_backend.app:create_app()"],
                env={**os.environ, **env}, stdout=out, stderr=out, start_new_session=True,
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

    def version(self) -> str:
        return str(self.predict()[0]["model_version"])

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = self.client.get("/health").json()["projects"].get(self.world.record.key, {})
        return facts

    def stop(self) -> None:
        self.client.close()
        self.redis.close()
        os.kill(self.process.pid, signal.SIGTERM)
        self.process.wait(timeout=30)

    def _upload(self) -> list[int]:
        """The first few pictures that are not blind."""
        seeds = [i for i in range(100) if bucket_of(group_of(picture(i)), BucketShares()) is Bucket.TRAIN][:TASKS]
        for seed in seeds:
            self._images.put(f"animals/{seed}.png", picture(seed))
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
        "LABELLOOP_S3_ACCESS_KEY": "test",
        "LABELLOOP_S3_SECRET_KEY": "test",
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
def started(env: dict[str, str], log: Path) -> Iterator[Served]:
    served = Served(env, log)
    try:
        wait_for(lambda: healthy(served), 60)
        yield served
    finally:
        served.stop()


@pytest.fixture
def served(s3_endpoint: str, valkey_url: str, tmp_path: Path) -> Iterator[Served]:
    with started(environment(s3_endpoint, valkey_url), tmp_path / "backend.log") as running:
        yield running


class Load:
    """Clients that ask without pause, each with a connection of its own, and note what they see."""

    def __init__(self, served: Served) -> None:
        self._served, self._stop = served, threading.Event()
        self.failures: list[str] = []
        self.responses: list[tuple[tuple[str, str], ...]] = []  # (version, class) of every item
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._served.url, auth=self._served.auth, timeout=30) as client:
            while not self._stop.is_set():
                try:
                    results = self._served.predict(client)
                    self.responses.append(tuple((r["model_version"], _class(r)) for r in results))
                except Exception as error:  # whatever it was, it is a failed call
                    self.failures.append(f"{type(error).__name__}: {error}")

    def check(self) -> None:
        """No failed call; every response of one version; every answer the one of the version it names."""
        assert self.failures == []
        assert len(self.responses) > DEPLOYS
        for response in self.responses:
            assert len(response) == TASKS
            assert len(set(response)) == 1, response
            ((name, answer),) = set(response)
            assert answer == CLASSES[int(name.removeprefix("v")) % 3]


def _class(result: dict[str, Any]) -> str:
    return str(result["result"][0]["value"]["choices"][0])


def next_version(served: Served, backbone: BackboneRecord, number: int) -> Version:
    """Version ``number``, whose answer follows from its number."""
    version = served.world.add(backbone, answer=number % 3)
    assert version.number == number
    return version


def test_heads_and_backbones_swap_under_load(served: Served) -> None:
    backbones = [served.world.backbone(16), served.world.backbone(24)]
    served.deploy(next_version(served, backbones[0], 1))
    wait_for(lambda: served.version() == "v1", 60)
    with Load(served) as load:
        for number in range(2, DEPLOYS + 1):
            served.deploy(next_version(served, backbones[number % 10 == 0], number))  # a backbone now and then
            time.sleep(0.05)
        delay = wait_for(lambda: served.version() == f"v{DEPLOYS}", 15)
    print(f"{DEPLOYS} deploys, {len(load.responses)} responses, the last version live after {delay:.2f} s")
    load.check()
    assert len({response[0][0] for response in load.responses}) > 5  # many versions were truly served


def test_a_corrupt_head_never_serves_and_the_reason_is_shown(served: Served) -> None:
    backbone = served.world.backbone()
    served.deploy(next_version(served, backbone, 1))
    wait_for(lambda: served.version() == "v1", 60)
    bad = next_version(served, backbone, 2)
    served.world.corrupt(bad.head_key)
    with Load(served) as load:
        served.deploy(bad)
        wait_for(lambda: bool(served.facts()["refused"]), 15)
        wait_for(lambda: len(load.responses) > DEPLOYS, 30)
    load.check()
    assert {response[0][0] for response in load.responses} == {"v1"}
    (refused,) = served.client.get("/versions").json()["live"][served.world.record.key]["refused"]
    assert refused["version"] == "v2"
    assert "hash" in refused["reason"]
    name = next(n for n in _backends(served) if n.endswith(f":{_worker(served)}"))
    key = served.world.record.key
    wait_for(lambda: bool(_backends(served)[name]["projects"].get(key, {}).get("refused")), 15)
    served.deploy(next_version(served, backbone, 3))
    wait_for(lambda: served.version() == "v3", 15)


def test_a_restart_with_a_bad_champion_serves_the_predecessor(
    s3_endpoint: str, valkey_url: str, tmp_path: Path
) -> None:
    with started(environment(s3_endpoint, valkey_url), tmp_path / "backend.log") as served:
        backbone = served.world.backbone()
        versions = [next_version(served, backbone, n) for n in (1, 2)]
        served.world.corrupt(versions[1].head_key)
        for version in versions:
            served.world.deploy(version)
        wait_for(lambda: served.version() == "v1", 60)
        assert served.facts()["deployed"] == "v2"


def test_without_redis_the_log_in_s3_is_enough(s3_endpoint: str, tmp_path: Path) -> None:
    nowhere = f"redis://{LOOPBACK}:{pick_port()}/0"
    with started(environment(s3_endpoint, nowhere), tmp_path / "backend.log") as served:
        backbone = served.world.backbone()
        for number in (1, 2):
            served.world.deploy(next_version(served, backbone, number))
            wait_for_version(served, f"v{number}", 60 if number == 1 else 15)  # the first one imports torch
        begun = time.monotonic()
        assert httpx.post(f"{served.url}/webhook", json={"action": "X", "project": {"id": 7}}).status_code == 202
        assert time.monotonic() - begun < 1


def test_a_webhook_becomes_a_nudge(served: Served) -> None:
    with served.redis.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
        channel.subscribe(NUDGE_CHANNEL)
        channel.get_message(timeout=1)  # the confirmation
        httpx.post(f"{served.url}/webhook", json={"action": "ANNOTATION_CREATED", "project": {"id": 7}})
        message = next(m for _ in range(50) if (m := channel.get_message(timeout=0.2)))
    assert b"ANNOTATION_CREATED" in message["data"]


def _backends(served: Served) -> dict[str, dict[str, Any]]:
    return {name: facts for name, facts in alive(served.redis).items() if name.startswith("backend:")}


def _worker(served: Served) -> int:
    """The worker's process id: gunicorn's only child."""
    children = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text().split()
    return int(children[0])
