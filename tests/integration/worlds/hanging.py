"""Servers that are stopped (SIGSTOP), clients that are slow, and how fast /health is beside them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

from embedded.environments import DATABASE, DEFAULT_ROOT, Environments
from embedded.ports import LOOPBACK, pick_port
from embedded.process import ServiceSpec
from embedded.services import ServicePlace, s3_service, valkey_service
from tests.integration.conftest import S3_KEY

VALKEY_PASSWORD = "of-the-tests"


@contextmanager
def running(spec: ServiceSpec) -> Iterator[subprocess.Popen[bytes]]:
    """The very process of a service, so that it can be stopped."""
    if spec.prepare:
        spec.prepare()
    with spec.log.open("wb") as out:
        process = subprocess.Popen(spec.argv, env=dict(spec.env), stdout=out, stderr=out)
    try:
        wait(lambda: _ready(spec), 60)
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def stores(folder: Path) -> Iterator[tuple[tuple[str, subprocess.Popen[bytes]], tuple[str, subprocess.Popen[bytes]]]]:
    """(endpoint, process) of an S3 server and (URL, process) of a Valkey server, both of one's own."""
    root = DEFAULT_ROOT
    programs = Environments(root / "label-studio" / "bin", root / "s3" / "bin", root / "label-studio" / DATABASE)
    places = {n: ServicePlace(folder / n, pick_port(), folder / f"{n}.log", dict(os.environ)) for n in ("s3", "valkey")}
    for place in places.values():
        place.directory.mkdir(parents=True)
    s3, redis = s3_service(places["s3"], S3_KEY, programs), valkey_service(places["valkey"], VALKEY_PASSWORD)
    with running(s3) as first, running(redis) as second:
        redis_url = f"redis://:{VALKEY_PASSWORD}@{LOOPBACK}:{places['valkey'].port}/0"
        yield (f"http://{LOOPBACK}:{places['s3'].port}", first), (redis_url, second)


@contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """It takes connections and never answers."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


@contextmanager
def repeating(what: Callable[[], object], times: int) -> Iterator[None]:
    """So many threads that do it again and again while the block lasts; what fails is tried again."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            with suppress(Exception):
                what()

    threads = [threading.Thread(target=run, daemon=True) for _ in range(times)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()


@contextmanager
def connections(url: str, count: int, first: bytes = b"", then: bytes = b"", every_s: float = 1.0) -> Iterator[None]:
    """Clients that send ``first``, then a byte of ``then`` now and then, and read nothing; whoever is thrown out comes
    back."""
    host, port = address(url)
    stop = threading.Event()

    def run(share: int) -> None:
        with ExitStack() as stack:
            kept: list[tuple[socket.socket, int]] = []
            while not stop.is_set():
                while len(kept) < share and not stop.is_set():
                    made = stack.enter_context(socket.socket())
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                    made.settimeout(5)
                    with suppress(OSError):
                        made.connect((host, port))
                        made.sendall(first)
                    kept.append((made, 0))
                kept = [
                    (s, n + 1) for s, n in kept if _dripped(s, then[n % len(then) : n % len(then) + 1] if then else b"")
                ]
                stop.wait(every_s)

    thread = threading.Thread(target=run, args=(count,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


def _dripped(made: socket.socket, byte: bytes) -> bool:
    try:
        made.sendall(byte)
        return True
    except OSError:
        made.close()
        return False


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


def get_s(url: str, path: str = "/health", limit_s: float = 10.0) -> float:
    """Seconds until a whole answer to a request over a connection of its own, as Label Studio asks; inf for none."""
    begun = time.monotonic()
    try:
        with socket.create_connection(address(url), timeout=limit_s) as made:
            made.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            said = b""
            while piece := made.recv(65536):
                said += piece
    except OSError:
        return float("inf")
    return time.monotonic() - begun if b" 200 " in said.partition(b"\r\n")[0] else float("inf")


def health_ms(url: str, seconds: float) -> list[float]:
    """How long /health takes, asked again and again for so long by a process that does nothing else."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        alone.submit(get_s, url).result()  # the process is there
        return alone.submit(_ask_on, url, seconds).result()


def _ask_on(url: str, seconds: float, every_s: float = 0.02) -> list[float]:
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        found.append(1000 * get_s(url))
        time.sleep(every_s)
    return found


def post(url: str, path: str, body: bytes, basic: str = "", limit_s: float = 30.0) -> int:
    """The status of the answer, 0 for none; over a connection of its own."""
    made = HTTPConnection(*address(url), timeout=limit_s)
    try:
        made.request("POST", path, body, {"Authorization": basic, "Content-Type": "application/json"})
        answer = made.getresponse()
        answer.read()
        return answer.status
    except OSError:
        return 0
    finally:
        made.close()


def percentiles(values: Sequence[float]) -> Mapping[str, float]:
    """p50, p99 and the worst."""
    found = sorted(values)
    return {"p50": found[len(found) // 2], "p99": found[int(0.99 * len(found))], "max": found[-1]}


def wait(what: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def _ready(spec: ServiceSpec) -> bool:
    with suppress(Exception):
        return bool(spec.ready())
    return False
