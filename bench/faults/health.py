"""`python -m bench.faults.health`: how fast /health is while the world hangs, and whether others go on.

Each situation lasts a few seconds. Prints p50, p99 and the worst of /health in milliseconds, asked over a connection of
its own as Label Studio does, and the predictions per second that another project gets meanwhile.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.tools.load import clients
from tests.integration.worlds.hanging import connections, health_ms, percentiles, post, repeating, stopped, stores

if TYPE_CHECKING:  # these import torch: the clients, in processes of their own, need none of it
    from tests.integration.worlds.serving import Served
    from tests.unit.worlds.backend import World

SLOW_BODY = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
SLOW_HINT = b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
LARGE = 4000  # tasks of one call whose answer is not read
Situation = Callable[[], AbstractContextManager[Any]]


class Other:
    """Another project: one with a model, or one that answers without having to read anything."""

    def __init__(self, served: Served, number: int, *, model: bool) -> None:
        from tests.unit.worlds.backend import World

        self.world = World(served.world.store, number=number)
        if model:
            self.world.deploy(self.world.add(self.world.backbone(), answer=1))
        self.body = body_of(served, self.world)


def body_of(served: Served, world: World, copies: int = 1) -> bytes:
    """One call of /predict."""
    return json.dumps(
        {"tasks": served.tasks[:1] * copies, "project": world.record.reference, "label_config": ""}
    ).encode()


@contextmanager
def busy(served: Served, count: int, body: bytes, out: Path) -> Iterator[None]:
    """Clients without pause in a process of their own."""
    spawn = multiprocessing.get_context("spawn")
    going, stop = spawn.Event(), spawn.Event()
    process = spawn.Process(target=clients, args=(served.url, served.auth, body, count, going, stop, str(out)))
    process.start()
    try:
        going.wait(30)
        yield
    finally:
        stop.set()
        process.join()


def measure(served: Served, situation: Situation, other: bytes, seconds: float, folder: Path) -> dict[str, float]:
    """/health and another project's predictions while the situation lasts."""
    out = folder / "other.json"
    with busy(served, 1, other, out), situation():
        time.sleep(0.5)
        begun = time.monotonic()
        found = health_ms(served.url, seconds)
        ended = time.monotonic()
    calls = [c for c in json.loads(out.read_text()) if begun <= c[0] < ended]
    good = [c for c in calls if c[3] == 1]
    return {**percentiles(found), "asked": len(found), "other_per_s": len(good) / (ended - begun),
            "other_failed": len(calls) - len(good)}  # fmt: skip


def rate(served: Served, body: bytes, count: int, seconds: float, folder: Path) -> dict[str, float]:
    """Calls per second of so many clients with small requests, and their latency."""
    out = folder / "rate.json"
    with busy(served, count, body, out):
        begun = time.monotonic()
        time.sleep(seconds)
        ended = time.monotonic()
    calls = [c for c in json.loads(out.read_text()) if begun <= c[0] < ended]
    took = percentiles([1000 * (c[1] - c[0]) for c in calls])
    return {"per_s": len(calls) / seconds, "failed": sum(c[3] != 1 for c in calls), **took}


def situations(served: Served, s3: Any, redis: Any, folder: Path) -> dict[str, tuple[Situation, bool]]:
    """By name; True where the other project must do without object storage."""
    body, url = body_of(served, served.world), served.url
    large = body_of(served, served.world, LARGE)
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: {served.basic}\r\nContent-Length: "

    @contextmanager
    def s3_stopped() -> Iterator[None]:
        with stopped(s3), repeating(lambda: post(url, "/predict", body, served.basic), 40):
            yield

    @contextmanager
    def redis_stopped() -> Iterator[None]:
        with stopped(redis), repeating(lambda: post(url, "/webhook", b'{"action": "X"}'), 4):
            yield

    return {
        "quiet": (nullcontext, False),
        "S3 stopped, 40 calls": (s3_stopped, True),
        "40 slow bodies, no password": (lambda: connections(url, 40, SLOW_BODY, b"x"), False),
        "40 slow webhooks": (lambda: connections(url, 40, SLOW_HINT, b"x"), False),
        "40 slow heads": (lambda: connections(url, 40, b"GET /health HTTP/1.1\r\n", b"x"), False),
        "40 slow bodies, password": (lambda: connections(url, 40, f"{head}999\r\n\r\n".encode(), b"x"), False),
        "2,000 idle connections": (lambda: connections(url, 2000), False),
        "20 slow readers": (lambda: connections(url, 20, f"{head}{len(large)}\r\n\r\n".encode() + large), False),
        "64 busy clients": (lambda: busy(served, 64, body, folder / "busy.json"), False),
        "Redis stopped, webhooks": (redis_stopped, False),
    }


def main() -> None:
    """Measure and print."""
    from tests.integration.worlds.serving import environment, next_version, started, wait_for

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each situation")
    parser.add_argument("--only", default="", help="situations whose name contains this")
    asked = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name, stores(Path(name)) as ((s3_url, s3), (redis_url, redis)):
        folder = Path(name)
        with started(environment(s3_url, redis_url), folder / "backend.log") as served:
            served.deploy(next_version(served, served.world.backbone(), 1))
            others = {False: Other(served, 8, model=True).body, True: Other(served, 9, model=False).body}
            wait_for(lambda: served.version() == "v1", 180)
            for other in others.values():
                wait_for(lambda other=other: post(served.url, "/predict", other, served.basic) == 200, 60)  # type: ignore[misc]
            if asked.only in "8 clients":
                body = body_of(served, served.world)
                figures["8 clients"] = rate(served, body, 8, asked.seconds, folder)
                print("8 clients", figures["8 clients"], flush=True)
            for what, (situation, cold) in situations(served, s3, redis, folder).items():
                if asked.only in what:
                    figures[what] = measure(served, situation, others[cold], asked.seconds, folder)
                    row = "  ".join(f"{k} {v:8.1f}" for k, v in figures[what].items())
                    print(f"{what:>28}  {row}", flush=True)
    print(json.dumps({"bench": "health", **figures}))


if __name__ == "__main__":
    main()
