"""Runs in a container beside the stack: asks for predictions as Label Studio does, until told to stop, and counts.

Every call has a connection of its own. SIGTERM (or SECONDS) ends it; the last line is a JSON object.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import threading
import time
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx

from cli.connect import open_deployment
from labelloop.images.reader import list_images

CLIENTS = 4
PAUSE_S = 0.02
IMAGES = 50
MOST_S = 600.0


@dataclass
class Tally:
    """What was seen, by all clients together."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)

    def ask(self, client: httpx.Client, body: dict[str, Any]) -> None:
        """One call; whatever goes wrong is a failure."""
        began = time.monotonic()
        try:
            answer = client.post("/predict", json=body)
            assert answer.status_code == 200, f"{answer.status_code} {answer.reason_phrase}"
            results = answer.json()["results"]
            assert len(results) == len(body["tasks"]), answer.text
            self.versions.add(results[0]["model_version"])
        except Exception as error:
            self.failures.append(f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {error}"[:200])
        self.seconds.append(time.monotonic() - began)

    def summary(self) -> dict[str, Any]:
        """What the caller wants to know."""
        ordered = sorted(self.seconds)
        return {
            "calls": len(ordered),
            "failures": len(self.failures),
            "first_failures": self.failures[:5],
            "versions": sorted(self.versions),
            "median_ms": round(statistics.median(ordered) * 1000, 1),
            "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000, 1),
            "worst_ms": round(ordered[-1] * 1000, 1),
        }


def bodies() -> list[dict[str, Any]]:
    """One request for each of a few images of the only project."""
    deployment = open_deployment(Path(".labelloop"))
    record = deployment.project(None)
    common = {"project": record.reference, "label_config": record.label_config}
    uris = islice(list_images(deployment.s3, record.image_uri), IMAGES)
    key = record.schema.data_key
    return [{**common, "tasks": [{"id": i, "data": {key: uri}}]} for i, (uri, _) in enumerate(uris)]


def main() -> None:
    """Ask until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    url, tally, requests = os.environ["LABELLOOP_BACKEND_URL"], Tally(), bodies()
    auth = (os.environ["LABELLOOP_BACKEND_USER"], os.environ["LABELLOOP_BACKEND_PASSWORD"])
    new_each_time = httpx.Limits(max_keepalive_connections=0)

    def client(number: int) -> None:
        with httpx.Client(base_url=url, auth=auth, timeout=100, limits=new_each_time) as connection:
            for body in cycle(requests[number::CLIENTS]):
                if stop.is_set():
                    return
                tally.ask(connection, body)
                stop.wait(PAUSE_S)

    clients = [threading.Thread(target=client, args=(n,), daemon=True) for n in range(CLIENTS)]
    for thread in clients:
        thread.start()
    stop.wait(float(sys.argv[1]) if len(sys.argv) > 1 else MOST_S)
    stop.set()
    for thread in clients:
        thread.join(timeout=110)
    print(json.dumps(tally.summary()), flush=True)


if __name__ == "__main__":
    main()
