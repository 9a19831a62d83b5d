"""`python -m bench.deploys`: 200 deploys, heads and backbones mixed, under eight clients on two gunicorn processes.

Prints how many calls failed, how many responses mixed versions, how long the slowest process took to follow each
deploy, and the clients' latency beside that of the same clients with no deploy at all (before and after: A B A).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from bench.tools.load import Call, clients
from embedded.environments import DATABASE, DEFAULT_ROOT, Environments
from embedded.ports import LOOPBACK, pick_port
from embedded.services import ServicePlace, s3_service, valkey_service
from embedded.supervisor import Supervisor
from labelloop.records.versions import Version
from tests.integration.conftest import S3_KEY
from tests.integration.worlds.serving import Served, environment, next_version, started, wait_for

VALKEY_PASSWORD = "of-the-bench"


@dataclass(frozen=True)
class Phase:
    """What the clients saw between two moments."""

    calls: list[Call]

    def latency_ms(self, percent: float) -> float:
        return float(np.percentile([1000 * (end - begin) for begin, end, *_ in self.calls], percent))


@contextmanager
def loaded(served: Served, count: int, out: Path) -> Iterator[None]:
    """Clients as long as the block lasts."""
    spawn = multiprocessing.get_context("spawn")
    going, stop = spawn.Event(), spawn.Event()
    tasks = {"tasks": served.tasks[:1], "project": served.world.record.reference}
    body = json.dumps({**tasks, "label_config": served.world.record.label_config}).encode()
    process = spawn.Process(target=clients, args=(served.url, served.auth, body, count, going, stop, str(out)))
    process.start()
    try:
        assert going.wait(60), "no client was answered"
        yield
    finally:
        stop.set()
        process.join()


def follow(calls: Sequence[Call], deployed: Sequence[tuple[float, str]]) -> list[float]:
    """Seconds from each deploy until the last call that still began and got an older version had ended."""
    delays = []
    order = {name: i for i, (_, name) in enumerate(deployed)}
    for i, (at, _) in enumerate(deployed):
        until = deployed[i + 1][0] if i + 1 < len(deployed) else float("inf")
        late = [c[0] - at for c in calls if at <= c[0] < until and order.get(c[2], -1) < i]
        delays.append(max(late, default=0.0))
    return delays


def measure(served: Served, versions: Sequence[Version], *, count: int, every_s: float, out: Path) -> dict[str, float]:
    """Steady, deploys, steady."""
    moments: list[tuple[float, str]] = []
    quiet_s = max(10.0, len(versions) * every_s / 4)
    with loaded(served, count, out):
        marks = [time.monotonic()]
        time.sleep(quiet_s)
        marks.append(time.monotonic())
        for version in versions:
            began = time.monotonic()
            served.deploy(version)
            moments.append((time.monotonic(), version.name))
            time.sleep(max(0.0, every_s - (time.monotonic() - began)))
        marks.append(time.monotonic())
        time.sleep(quiet_s)
        marks.append(time.monotonic())
    calls: list[Call] = [tuple(c) for c in json.loads(out.read_text())]
    before, during, after = (Phase([c for c in calls if begin <= c[0] < end]) for begin, end in pairwise(marks))
    steady = Phase(before.calls + after.calls)
    delays = follow(calls, moments)
    return {
        "deploys": len(versions), "calls": len(calls), "failed": sum(c[3] == 0 for c in calls),
        "mixed": sum(c[3] > 1 for c in calls), "versions_seen": len({c[2] for c in calls}),
        "followed_p50_s": float(np.percentile(delays, 50)), "followed_max_s": max(delays),
        "p99_ms_steady": steady.latency_ms(99), "p99_ms_deploys": during.latency_ms(99),
        "p99_ratio": during.latency_ms(99) / steady.latency_ms(99),
        "p50_ms_steady": steady.latency_ms(50), "p50_ms_deploys": during.latency_ms(50),
    }  # fmt: skip


@contextmanager
def stores(folder: Path) -> Iterator[tuple[str, str]]:
    """(S3 endpoint, Redis URL) of real servers on free ports."""
    root = DEFAULT_ROOT
    programs = Environments(root / "label-studio" / "bin", root / "s3" / "bin", root / "label-studio" / DATABASE)
    ports = [pick_port(), pick_port()]
    places = [
        ServicePlace(folder / n, p, folder / f"{n}.log", os.environ)
        for n, p in zip(("s3", "valkey"), ports, strict=True)
    ]
    for place in places:
        place.directory.mkdir(parents=True)
    supervisor = Supervisor(
        [s3_service(places[0], S3_KEY, programs), valkey_service(places[1], VALKEY_PASSWORD)], mark=str(folder)
    )
    supervisor.start()
    try:
        supervisor.wait_ready()
        yield f"http://{LOOPBACK}:{ports[0]}", f"redis://:{VALKEY_PASSWORD}@{LOOPBACK}:{ports[1]}/0"
    finally:
        supervisor.stop()


def run(env: dict[str, str], folder: Path, asked: argparse.Namespace) -> dict[str, float]:
    """All versions are made before the clients begin: only deploys are measured."""
    with started(env, folder / "backend.log", processes=asked.processes) as served:
        backbones = [served.world.backbone(16), served.world.backbone(24)]
        versions = [next_version(served, backbones[n % 10 == 0], n) for n in range(1, asked.deploys + 2)]
        served.deploy(versions[0])
        wait_for(lambda: all(served.version() == "v1" for _ in range(20)), 180)  # torch is imported first
        out = folder / "calls.json"
        return measure(served, versions[1:], count=asked.clients, every_s=asked.every, out=out)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deploys", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--every", type=float, default=0.4, help="seconds between two deploys")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, stores(Path(folder)) as (s3, redis):
        figures = run(environment(s3, redis), Path(folder), asked)
    for name, value in figures.items():
        print(f"{name:>16}  {round(value, 3)}")
    print(json.dumps({"bench": "deploys", **figures}))


if __name__ == "__main__":
    main()
