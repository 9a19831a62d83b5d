"""`python -m bench.annotators`: three people with own accounts label at once, beside a loop at rest and at work.

At rest: watcher and workers are stopped (SIGSTOP), so that Label Studio has the machine to itself. At work: refreshes
after every ten labels. Prints the latency of `next` and of the submit for both (A B A), whether anybody got a task
that another had, and how far from the front of the queue each served task was.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from cli.connect import deployment_of
from cli.up import make_stack
from embedded.process import ServiceState
from embedded.stack import Stack
from labelloop.store.projects import ProjectRecord
from labelloop.store.scores import ScoreStore
from labelloop.studio.client import Studio
from operations.deployment import Deployment
from operations.projects.setup import open_source, set_up, wait_ready
from operations.simulation.accounts import join

WORKERS = ("sync", "refresh", "features", "train")


@dataclass(frozen=True)
class Served:
    """One task as one person got it."""

    at: float
    person: int
    task: int
    uri: str
    version: str | None
    next_s: float
    submit_s: float


def label(
    studio: Studio, record: ProjectRecord, truth: dict[str, str], person: int, count: int, rest_s: float,
    out: list[Served],
) -> None:  # fmt: skip
    """One person: next, look, submit."""
    for _ in range(count):
        began = time.monotonic()
        task = studio.next_task(record.id, record.schema)
        got = time.monotonic()
        if task is None:
            return
        time.sleep(rest_s)
        sent = time.monotonic()
        studio.annotate(
            task.id, record.schema.result(truth[task.uri]), lead_time_s=rest_s, prediction=task.prediction_id
        )
        version = task.prediction.version if task.prediction else None
        out.append(Served(got, person, task.id, task.uri, version, got - began, time.monotonic() - sent))


@contextmanager
def at_rest(stack: Stack) -> Iterator[None]:
    """Watcher and workers do nothing. Not before they have started: one that is frozen in its start is given up."""
    while any(s.name in WORKERS and s.state is not ServiceState.READY for s in stack.statuses()):
        time.sleep(0.2)
    pids = [s.pid for s in stack.statuses() if s.name in WORKERS and s.pid]
    for pid in pids:
        os.killpg(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.killpg(pid, signal.SIGCONT)


def phase(
    people: Sequence[Studio], record: ProjectRecord, truth: dict[str, str], each: int, rest_s: float
) -> list[Served]:
    """All of them at once."""
    served: list[Served] = []
    threads = [
        threading.Thread(target=label, args=(studio, record, truth, i, each, rest_s, served))
        for i, studio in enumerate(people)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return served


def places(deployment: Deployment, record: ProjectRecord, served: Sequence[Served]) -> list[int]:
    """For each task served under a version with one order: how many tasks before it in the queue nobody had yet."""
    store, found = ScoreStore(deployment.within(record)), []
    for version in {s.version for s in served if s.version}:
        scores = store.newest(version)
        order = [p.uri for p in scores.places] if scores else []
        mine = sorted((s for s in served if s.version == version and s.uri in order), key=lambda s: s.at)
        before = {s.uri for s in served if s.version != version}
        left = [uri for uri in order if uri not in before]
        for one in mine:
            if one.uri in left:
                found.append(left.index(one.uri))
                left.remove(one.uri)
    return found


def figures(name: str, served: Sequence[Served]) -> dict[str, float]:
    """Latencies in milliseconds."""
    return {
        f"{what}_{name}_p{percent}_ms": round(
            1000 * float(np.percentile([getattr(s, f"{what}_s") for s in served], percent)), 1
        )
        for what in ("next", "submit")
        for percent in (50, 95)
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, default=300)
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--rest", type=float, default=1.5, help="seconds that a person looks at an image")
    asked = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="labelloop-bench-") as folder:
        home = Path(folder)
        with make_stack(home, console) as stack:
            state = stack.start()
            stack.wait_ready()
            deployment = deployment_of(state)
            source = open_source(home, None, None, None)
            record, _ = set_up(deployment, source, lambda *_: None)
            wait_ready(deployment, record, lambda *_: None)
            truth = {f"s3://{deployment.settings.image_buckets[0]}/{f.key}": f.label or "" for f in source.files}
            owner = deployment.settings.require_studio_token()
            people = [join(deployment.settings.studio_url, owner, f"person{i}") for i in range(asked.people)]
            each, quiet = asked.labels // asked.people, max(10, asked.labels // asked.people // 4)
            with at_rest(stack):
                rest = phase(people, record, truth, quiet, asked.rest)
            time.sleep(8)  # what came meanwhile is read
            work = phase(people, record, truth, each, asked.rest)
            time.sleep(3)
            with at_rest(stack):
                rest += phase(people, record, truth, quiet, asked.rest)
            everything = Counter(s.task for s in [*rest, *work])
            ahead = places(deployment, record, work)
            result = {
                "labels": len(work), "people": asked.people, "twice": sum(n > 1 for n in everything.values()),
                "versions": len(deployment.registry(record).deployments()),
                "served_within_people": sum(a < asked.people for a in ahead), "served_ranked": len(ahead),
                "furthest": max(ahead, default=0), **figures("rest", rest), **figures("work", work),
            }  # fmt: skip
            for studio in people:
                studio.close()
            deployment.close()
    for name, value in result.items():
        print(f"{name:>24}  {value}")
    print(json.dumps({"bench": "annotators", **result}))


if __name__ == "__main__":
    main()
