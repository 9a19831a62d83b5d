"""A real gunicorn, real S3 and Valkey: versions change under load and nobody notices."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from embedded.ports import LOOPBACK, pick_port
from labelloop.queue.channels import NUDGE_CHANNEL
from labelloop.queue.heartbeat import alive
from tests.integration.worlds.serving import (
    TASKS,
    Served,
    environment,
    next_version,
    started,
    wait_for,
    wait_for_version,
)
from tests.unit.worlds.backend import CLASSES

CLIENTS = 4
DEPLOYS = 50


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
