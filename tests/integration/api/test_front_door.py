"""The API's front door and the backend as processes: one address, real S3 and Valkey between them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from embedded.ports import LOOPBACK, pick_port
from embedded.services import ServicePlace, valkey_service
from embedded.supervisor import Supervisor
from labelloop.records.api_keys import Scope
from labelloop.web.classify_types import MAX_BODY
from tests.integration.api.processes import Running, no_auth, running_api
from tests.integration.conftest import VALKEY_PASSWORD
from tests.integration.worlds.serving import wait_for
from tests.unit.worlds.backend import picture

ROOT = Path(__file__).parents[3]


@dataclass
class Redis:
    """A server of our own: one test stops it."""

    url: str
    stop: Callable[[], None]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    folder = tmp_path_factory.mktemp("valkey")
    place = ServicePlace(folder, pick_port(), folder / "valkey.log", dict(os.environ))
    supervisor = Supervisor([valkey_service(place, VALKEY_PASSWORD)], mark=str(folder))
    supervisor.start()
    try:
        supervisor.wait_ready()
        yield Redis(f"redis://:{VALKEY_PASSWORD}@{LOOPBACK}:{place.port}/0", supervisor.stop)
    finally:
        supervisor.stop()


@pytest.fixture(scope="module")
def running(s3_endpoint: str, redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_api(s3_endpoint, redis.url, tmp_path_factory.mktemp("api")) as made:
        yield made


def test_one_address_before_both(running: Running) -> None:
    headers = running.key(*Scope)
    answer = running.classify({**headers, "X-Request-Id": "r-7"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Request-Id"] == "r-7"
    assert (answer.json()["version"], answer.json()["images"][0]["label"]) == ("v1", "dog")
    project = running.served.world.record.key
    assert [p["key"] for p in running.client.get("/v1/projects", headers=headers).json()["projects"]] == [project]
    status = running.client.get(f"/v1/projects/{project}/status", headers=headers).json()
    assert {s["name"].partition(":")[0] for s in status["services"]} >= {"api", "backend"}
    before = running.served.version()
    v2 = running.served.world.add(running.served.world.backbone(), 2)
    promoted = running.client.post(f"/v1/projects/{project}/promote", headers=headers, json={"version": v2.name})
    assert promoted.json()["champion"] == "v2", promoted.text
    wait_for(lambda: running.classify(headers).json()["version"] == "v2", 10)
    back = running.client.post(f"/v1/projects/{project}/rollback", headers=headers, json={})
    assert back.json()["champion"] == before


def test_the_examples_of_the_documents_run(running: Running, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(picture(1))
    examples = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/api.md").read_text(), flags=re.S)[1:]
    assert len(examples) == 7
    env = {**os.environ, "API": running.url, "KEY": running.key(*Scope)["Authorization"].removeprefix("Bearer "),
           "PROJECT": running.served.world.record.key, "NO_PROXY": "*"}  # fmt: skip
    for example in examples:
        done = subprocess.run(["bash", "-eu", "-c", example], cwd=tmp_path, env=env, capture_output=True, check=True)
        body = json.loads(done.stdout)
        assert "problem" not in body, body
        assert "detail" not in body, body


def test_a_revoked_key_ends_within_seconds_in_both_processes(running: Running) -> None:
    headers = running.key(Scope.PREDICT)
    assert running.classify(headers).status_code == 200
    running.keys.revoke(headers["Authorization"].split("_")[1])
    took = wait_for(lambda: running.classify(headers).status_code == 401, 10)
    assert took < 4  # two seconds between reads, and what a read takes
    body = {"images": [{"base64": ""}]}
    wait_for(
        lambda: running.served.client.post("/v1/classify", headers=headers, auth=no_auth, json=body).status_code == 401,
        4,
    )


def test_large_files_and_many_at_once_go_through(running: Running) -> None:
    headers = running.key(Scope.PREDICT, per_minute=6000)
    large = picture(3, 1500)  # 6.7 MB
    assert len(large) > 5_000_000
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: running.classify(headers, large if n % 3 == 0 else None), range(18)))
    statuses = {a.status_code for a in answers}
    assert statuses <= {200, 503}
    assert sum(a.status_code == 200 for a in answers) >= 12
    assert all("Retry-After" in a.headers for a in answers if a.status_code == 503)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(running: Running) -> None:
    headers = running.key(Scope.PREDICT)
    for key, status in ((headers, 413), ({}, 401)):
        with socket.create_connection((LOOPBACK, int(running.url.rpartition(":")[2])), timeout=5) as raw:
            lines = [f"{name}: {value}" for name, value in {"Host": "x", **key, "Content-Length": MAX_BODY + 1}.items()]
            raw.sendall("\r\n".join(["POST /v1/classify HTTP/1.1", *lines, "", ""]).encode())
            assert raw.recv(64).startswith(f"HTTP/1.1 {status} ".encode())


def test_who_sends_slowly_holds_up_nobody(running: Running) -> None:
    headers = running.key(Scope.PREDICT)
    port = int(running.url.rpartition(":")[2])
    with contextlib.ExitStack() as open_ones:
        for _ in range(40):
            raw = open_ones.enter_context(socket.create_connection((LOOPBACK, port), timeout=5))
            raw.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nAuthorization: " + headers["Authorization"].encode()
                        + b"\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{")  # fmt: skip
        began = time.monotonic()
        assert running.classify(headers).status_code == 200
        assert time.monotonic() - began < 5


def test_keys_and_limits_hold_while_redis_is_away(running: Running, redis: Redis) -> None:
    headers, few = running.key(*Scope), running.key(Scope.READ, per_minute=60)
    project = running.served.world.record.key
    redis.stop()
    assert running.classify(headers).status_code == 200
    assert running.client.get("/v1/projects", headers={"Authorization": "Bearer x"}).status_code == 401
    fresh = running.key(Scope.PREDICT)  # a new one counts, too
    assert running.classify(fresh).status_code == 200
    statuses = [running.client.get("/v1/projects", headers=few).status_code for _ in range(12)]
    assert 429 in statuses
    assert set(statuses) == {200, 429}
    shown = running.client.get(f"/v1/projects/{project}/status", headers=headers)
    assert shown.status_code == 200
    assert not next(s for s in shown.json()["services"] if s["name"] == "redis")["ok"]
    assert running.client.post(f"/v1/projects/{project}/retrain", headers=headers).status_code == 202
    decided = running.client.post(
        f"/v1/projects/{project}/promote", headers=headers, json={"version": "v2"}, timeout=40
    )
    assert (decided.status_code, "Retry-After" in decided.headers) == (503, True)  # its lease is in Redis
    assert decided.headers["Content-Type"] == "application/problem+json"


def test_a_backend_that_is_away_is_503(running: Running) -> None:
    headers = running.key(Scope.PREDICT)
    running.served.process.send_signal(signal.SIGTERM)
    running.served.process.wait(timeout=30)
    answer = running.client.post("/v1/classify", headers=headers, files={"image": io.BytesIO(picture(1))})
    assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json")
    assert "Retry-After" in answer.headers
