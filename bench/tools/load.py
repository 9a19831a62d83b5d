"""Clients that ask the backend without pause, in a process of their own; what they saw goes into a file."""

from __future__ import annotations

import json
import threading
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import httpx

Call = tuple[float, float, str, int, int]  # begun, ended (monotonic), version or the failure, versions in it, bytes


def ask(url: str, auth: tuple[str, str], body: bytes, going: Event, stop: Event, calls: list[Call]) -> None:
    """One client: asks without pause, over one connection."""
    headers = {"Content-Type": "application/json"}
    with httpx.Client(base_url=url, auth=auth, timeout=30, headers=headers) as client:
        while not stop.is_set():
            begin = time.monotonic()
            try:
                answer = client.post("/predict", content=body)
                versions = {r["model_version"] for r in answer.json()["results"]} if answer.is_success else set()
                said = next(iter(versions), f"HTTP {answer.status_code}")
                calls.append((begin, time.monotonic(), said, len(versions), len(answer.content)))
                if len(calls) == 1:
                    going.set()
            except (httpx.HTTPError, ValueError) as error:
                calls.append((begin, time.monotonic(), type(error).__name__, 0, 0))


def clients(url: str, auth: tuple[str, str], body: bytes, count: int, going: Event, stop: Event, out: str) -> None:
    """All clients in a process of their own; what they saw goes into a file."""
    calls: list[Call] = []
    threads = [threading.Thread(target=ask, args=(url, auth, body, going, stop, calls)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    Path(out).write_text(json.dumps(calls))
