"""Clients that send nothing but the worst images, and a good one beside them: what that does to a real backend."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from bench.tools.memory import Peak
from tests.integration.worlds.serving import Served


@dataclass
class Attack:
    """What was seen while it went on."""

    calls: Counter[str] = field(default_factory=Counter)  # of the bad clients, by status or error
    labelled: int = 0  # bad images that were answered with a label all the same
    good_s: list[float] = field(default_factory=list)  # each call of the good client, every image answered
    good_failures: list[str] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)
    peak: int = 0  # bytes of all the backend's processes
    parts: list[int] = field(default_factory=list)  # of each process at that moment


def upload_worst(served: Served, images: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Their tasks; outside of the project's prefix, so that none of them is blind."""
    for name, data in images.items():
        served.images.put(f"worst/{name}", data)
    return [{"id": i, "data": {"image": f"s3://{served.bucket}/worst/{name}"}} for i, name in enumerate(images)]


def attack(served: Served, worst: Sequence[Mapping[str, Any]], *, clients: int, seconds: float) -> Attack:
    """``clients`` send all of these in each call, without pause."""
    seen, stop = Attack(), threading.Event()
    threads = [threading.Thread(target=_send, args=(served, worst, seen, stop)) for _ in range(clients)]
    threads += [threading.Thread(target=work, args=(served, seen, stop)) for work in (_good, _health)]
    with Peak(served.process.pid) as peak:
        for thread in threads:
            thread.start()
        stop.wait(seconds)
        stop.set()
        for thread in threads:
            thread.join()
    seen.peak, seen.parts = peak.most, peak.parts
    return seen


@contextmanager
def _client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, auth=served.auth, timeout=120) as client:
        yield client


def _send(served: Served, worst: Sequence[Mapping[str, Any]], seen: Attack, stop: threading.Event) -> None:
    record = served.world.record
    body = {"tasks": list(worst), "project": record.reference, "label_config": record.label_config}
    with _client(served) as client:
        while not stop.is_set():
            try:
                answer = client.post("/predict", json=body)
            except httpx.TransportError as error:
                seen.calls[type(error).__name__] += 1
                continue
            seen.calls[str(answer.status_code)] += 1
            if answer.status_code == 200:
                seen.labelled += sum(bool(r["result"]) for r in answer.json()["results"])


def _good(served: Served, seen: Attack, stop: threading.Event) -> None:
    with _client(served) as client:
        while not stop.is_set():
            began = time.monotonic()
            try:
                assert all(r["result"] for r in served.predict(client)), "an image without an answer"
                seen.good_s.append(time.monotonic() - began)
            except (AssertionError, httpx.TransportError) as error:
                seen.good_failures.append(f"{type(error).__name__}: {error}")
            stop.wait(0.1)


def _health(served: Served, seen: Attack, stop: threading.Event) -> None:
    with _client(served) as client:
        while not stop.is_set():
            began = time.monotonic()
            assert client.get("/health").status_code == 200
            seen.health_s.append(time.monotonic() - began)
            stop.wait(0.1)
