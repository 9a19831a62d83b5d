"""Damaged objects in the bucket of a real stack: its processes start, serve and learn, and the commands name them."""

from __future__ import annotations

import json
import os
import signal

import httpx

from labelloop.clock import stamp
from labelloop.objects.copies import copy_key
from labelloop.objects.storage import ObjectStore
from labelloop.queue.heartbeat import alive
from labelloop.store.projects import ProjectRecord
from labelloop.store.registry import VERSIONS
from operations.doctor.diagnosis import diagnose
from tests.acceptance.conftest import Loop, until

LASTING = ("deployments/", "runs/", "requests/")  # what nothing can derive


def newest(store: ObjectStore, prefix: str) -> str:
    return max(info.key for info in store.list(prefix))


def oldest(store: ObjectStore, prefix: str) -> str:
    return min(info.key for info in store.list(prefix))


def ready(loop: Loop) -> bool:
    stack = loop.deployment.stack
    assert stack is not None
    try:
        return httpx.get(f"{stack.backend_url}/ready", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def restart(loop: Loop, kind: str) -> None:
    """Kill the processes of one kind; the stack starts them again."""
    before = {n: f for n, f in alive(loop.deployment.queue.redis).items() if n.startswith(f"{kind}:")}
    for facts in before.values():
        os.kill(int(facts["pid"]), signal.SIGKILL)

    def replaced() -> bool:
        now = alive(loop.deployment.queue.redis)
        return any(name.startswith(f"{kind}:") and name not in before for name in now)

    until(replaced, 120, f"another {kind}")


def test_a_damaged_bucket_is_served_learned_from_told_and_healed(loop: Loop) -> None:
    until(lambda: loop.live() is not None, what="a first model")
    loop.submit(11)
    store, record = loop.deployment.within(loop.project), loop.project
    until(lambda: len(loop.deployment.registry(record).deployments()) > 1, what="a second model")
    until(lambda: not loop.picture().running, what="rest")
    request = f"requests/{stamp()}-0a1b2c.json"
    lasting = (newest(store, "deployments/"), oldest(store, "runs/"), request)  # a run that goes on is written again
    damaged = dict.fromkeys(lasting, b"\xff\x00junk")
    damaged |= {"snapshots/latest.json": b"[1]", newest(store, "catalogue/"): b"{}"}
    good = {key: store.get(key) for key in damaged if key != request}
    try:
        damage(loop, record, damaged)
    finally:  # the tests that follow have the same stack
        store.delete(request)
        for key, raw in good.items():
            if store.get(key) == damaged[key]:
                store.put(key, raw)
    until(lambda: not loop.picture().damaged, 90, "nothing damaged")
    assert newest(store, VERSIONS)


def damage(loop: Loop, record: ProjectRecord, damaged: dict[str, bytes]) -> None:
    """Put junk where ``damaged`` says; every process starts on it, answers, learns, and what can be derived heals."""
    store = loop.deployment.within(record)
    for key, junk in damaged.items():
        store.put(key, junk)
    loop.deployment.store.put(f"index/{record.key}.json", b"{}")
    for kind in ("backend", "sync", "worker"):
        restart(loop, kind)
    until(lambda: ready(loop), 180, "a backend that is ready")
    before = loop.live()
    assert before is not None
    loop.submit(12)
    until(lambda: loop.live() != before, 180, "a version that was learned since")
    lasting = {f"projects/{record.key}/{key}" for key in damaged if key.startswith(LASTING)}
    assert lasting <= {d["key"] for d in loop.status()["damaged"]}
    told = json.dumps([f.to_json() for f in diagnose(loop.deployment)])
    assert all(key in told for key in lasting)
    for key in ("snapshots/latest.json", newest(store, "catalogue/")):
        until(lambda key=key: store.get(key) != damaged.get(key), 60, f"{key} healed")  # type: ignore[misc]
    until(lambda: _is_whole(loop, record), 60, "the project's record healed")
    assert store.exists(copy_key("record.json"))


def _is_whole(loop: Loop, record: ProjectRecord) -> bool:
    return loop.deployment.store.get(f"index/{record.key}.json") != b"{}"
