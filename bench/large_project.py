"""`python -m bench.large_project`: a real Label Studio project with very many tasks, and people who label in it.

Prints, one JSON line each: how long `next` and the submit take while watcher and workers are stopped, while they watch
and find nothing, and while they work (a refresh every ten labels); how soon after a refresh the queue is in the new
order; what each kind of request of ours takes, and `next` meanwhile; and the watcher's CPU time where nothing happens.

    python -m bench.large_project --tasks 10000 --state-dir DIR      # DIR is kept, and used again by the next run
    python -m bench.large_project --tasks 100000 --postgres          # needs PostgreSQL's programs, and root
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
from rich.console import Console

from bench.annotators import Served, at_rest, phase
from bench.tools.many_images import truth, upload
from bench.tools.postgres import postgres
from bench.tools.prepared import featurise
from cli.connect import deployment_of
from cli.up import make_stack
from embedded.stack import Stack
from labelloop.config.project import load_config
from labelloop.labels.results import make_label_config
from labelloop.objects.storage import S3Store
from labelloop.records.tasks import QueuePlace
from labelloop.store.projects import ProjectRecord
from labelloop.studio.client import Studio
from operations.deployment import Deployment
from operations.projects.setup import known_project
from operations.projects.wiring import Wish, ensure_bucket, wire
from operations.simulation.accounts import join
from operations.status import StatusReader

PREFIX = "large/"
CLASSES = tuple("0123456789")
IMPORT_CHUNK = 2500
CONFIG = Path(__file__).parent.parent / "configs" / "digits.yaml"


@dataclass
class Bench:
    """The running stack with its project."""

    stack: Stack
    deployment: Deployment
    record: ProjectRecord
    truth: Mapping[str, str]
    home: Path
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def studio(self) -> Studio:
        return self.deployment.studio

    def tell(self, figure: str, **values: object) -> None:
        """One figure, for people and for machines."""
        shown = "  ".join(f"{k}={v}" for k, v in values.items())
        print(f"{figure:>22}  {shown}", flush=True)
        print(json.dumps({"bench": "large_project", "figure": figure, **self.facts, **values}), flush=True)

    def pid(self, service: str) -> int:
        return next(s.pid for s in self.stack.statuses() if s.name == service and s.pid)


def build(stack: Stack, deployment: Deployment, asked: argparse.Namespace, home: Path) -> Bench:
    """Tasks by the API, then the wiring: so nothing has to be synced. Images in the bucket only where that is asked."""
    tasks = asked.tasks
    bucket = deployment.settings.image_buckets[0]
    for name in (bucket, deployment.settings.state_bucket):
        ensure_bucket(deployment.s3, name)
    known = {f"s3://{bucket}/{key}": label for key, label in truth(tasks, PREFIX).items()}
    uri = f"s3://{bucket}/{PREFIX}"
    adopt = known_project(deployment, uri)
    if adopt is None:
        count = tasks if asked.upload else 1  # Label Studio wants to see at least one
        upload(S3Store(deployment.s3, bucket), count, PREFIX, lambda n: print(f"uploaded {n}", flush=True))
        studio = deployment.studio
        adopt = studio.create_project("large", make_label_config(CLASSES)).id
        rows = [{"image": address} for address in known]
        for start in range(0, tasks, IMPORT_CHUNK):
            studio.import_tasks(adopt, rows[start : start + IMPORT_CHUNK])
            print(f"imported {start + IMPORT_CHUNK}", flush=True)
    config = load_config(CONFIG)
    wish = Wish(config, uri, CLASSES, adopt=adopt)
    record, _ = wire(deployment.studio, deployment.projects, deployment.settings, wish)
    if not asked.upload:
        numbers = {address: number for number, address in enumerate(known)}
        featurise(deployment, record, numbers, lambda n: print(f"featurised {n}", flush=True))
    return Bench(stack, deployment, record, known, home)


def wait_featurised(bench: Bench, timeout_s: float = 3600) -> None:
    """Until every image has features and the queue an order."""
    reader, end = StatusReader(bench.deployment), time.monotonic() + timeout_s
    told = -1
    while time.monotonic() < end:
        pool = next((p.pool for p in reader.read().projects if p.key == bench.record.key), {})
        done = int(pool.get("featurised", 0))
        if done // 10_000 != told:
            told = done // 10_000
            print(f"featurised {done}", flush=True)
        if done >= len(bench.truth) and bench.studio.project(bench.record.id).model_version:
            return
        time.sleep(5)
    raise TimeoutError("the features did not come: look at the logs")


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def quiet(bench: Bench, seconds: float) -> None:
    """The watcher where nothing happens."""
    pid = bench.pid("sync")
    began, before, studio_before = time.monotonic(), cpu_s(pid), cpu_s(bench.pid("label_studio"))
    time.sleep(seconds)
    took = time.monotonic() - began
    bench.tell(
        "quiet", watcher_cpu_s_per_minute=round((cpu_s(pid) - before) / took * 60, 2),
        label_studio_cpu_s_per_minute=round((cpu_s(bench.pid("label_studio")) - studio_before) / took * 60, 2),
        seconds=round(took),
    )  # fmt: skip


def latencies(bench: Bench, name: str, served: Sequence[Served]) -> None:
    """Of `next` and of the submit."""
    for what in ("next", "submit"):
        bench.tell(f"{what} {name}", **spread([getattr(s, f"{what}_s") for s in served]))


def spread(seconds: Sequence[float]) -> dict[str, object]:
    """Median, p95 and the worst, in milliseconds."""
    found = {f"p{p}_ms": round(1000 * float(np.percentile(seconds, p))) for p in (50, 95)}
    return {"n": len(seconds), **found, "max_ms": round(1000 * max(seconds))}


def renewals(bench: Bench, served: Sequence[Served], since: float) -> None:
    """From each deploy to the push, and to the first task that somebody got in the new order."""
    offset = time.time() - time.monotonic()
    pushed: dict[str, float] = {}
    for line in (bench.home / "logs" / "sync.log").read_text().splitlines():
        entry = json.loads(line) if line.startswith("{") else {}
        if entry.get("action") == "push":
            pushed.setdefault(entry["version"], datetime.fromisoformat(entry["timestamp"]).timestamp())
    to_push, to_serve, skipped = [], [], 0
    log = bench.deployment.registry(bench.record).deployments()
    for number, entry in enumerate(log):
        at = datetime.fromisoformat(entry.at).timestamp()
        if at < since:
            continue
        first = min((s.at + offset for s in served if s.version == entry.version), default=None)
        if entry.version in pushed:
            to_push.append(pushed[entry.version] - at)
        if first is None:
            skipped += number + 1 < len(log)
        else:
            to_serve.append(first - at)
    if to_push:
        bench.tell("refresh to pushed", **spread(to_push))
    if to_serve:
        bench.tell("refresh to first next", **spread(to_serve), overtaken=skipped)


@contextmanager
def asking(studio: Studio, record: ProjectRecord) -> Iterator[list[float]]:
    """Somebody asks for the next task without pause; the durations."""
    took: list[float] = []
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            began = time.monotonic()
            studio.next_task(record.id, record.schema)
            took.append(time.monotonic() - began)
            time.sleep(0.05)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield took
    finally:
        stop.set()
        thread.join()


def requests(bench: Bench, people: Sequence[Studio]) -> None:
    """What each kind of our requests takes at this size, and what `next` takes meanwhile."""
    studio, project, schema = bench.studio, bench.record.id, bench.record.schema
    stubs = [s for s in next(studio.all_tasks(project, schema)) if not s.annotations][:200]
    newest = "2100-01-01T00:00:00.000000Z"
    places = [(s.id, QueuePlace(s.uri, 0.999, None, None, True, "quota")) for s in stubs]
    live = studio.project(project).model_version
    ids = [s.id for s in stubs]
    kinds: dict[str, Callable[[], object]] = {
        "empty poll": lambda: list(studio.changes(project, schema, newest)),
        "count": lambda: studio.task_count(project),
        "count of a range": lambda: studio.task_count(project, (min(ids), max(ids))),
        "ids of a range": lambda: studio.task_ids(project, (min(ids), max(ids))),
        "page of everything": lambda: next(studio.all_tasks(project, schema)),
        "10 tasks in full": lambda: studio.tasks(project, schema, ids[:10]),
        "project": lambda: studio.project(project),
        "prediction counts": lambda: studio.prediction_counts(project),
        "push of 200": lambda: studio.push(project, schema, "bench", places),
        "switch": lambda: studio.update_project(project, model_version="bench"),
        "switch back": lambda: studio.update_project(project, model_version=live),
        "delete 200": lambda: studio.delete_predictions(project, "bench"),
    }
    with at_rest(bench.stack):
        with asking(people[0], bench.record) as alone:
            time.sleep(8)
        bench.tell("next alone", **spread(alone))
        for name, request in kinds.items():
            with asking(people[0], bench.record) as took:
                time.sleep(0.5)
                began = time.monotonic()
                request()
                seconds = time.monotonic() - began
                time.sleep(0.5)
            bench.tell(name, ms=round(1000 * seconds), next_max_ms=round(1000 * max(took)))


def run(bench: Bench, asked: argparse.Namespace) -> None:
    """All measurements."""
    wait_featurised(bench)
    owner = bench.deployment.settings.require_studio_token()
    run_id = int(time.time()) % 100_000
    people = [join(bench.studio.url, owner, f"person{run_id}-{i}") for i in range(asked.people)]
    phase(people, bench.record, dict(bench.truth), 5, 0.2)  # a first model
    time.sleep(10)
    requests(bench, people)
    with at_rest(bench.stack):
        latencies(bench, "at rest", phase(people, bench.record, dict(bench.truth), asked.each // 3, asked.rest))
    time.sleep(10)
    since = time.time()
    served = phase(people, bench.record, dict(bench.truth), asked.each, asked.rest)
    time.sleep(5)
    latencies(bench, "at work", served)
    renewals(bench, served, since)
    with at_rest(bench.stack):
        latencies(bench, "at rest again", phase(people, bench.record, dict(bench.truth), asked.each // 3, asked.rest))
    time.sleep(75)  # until the watcher takes the project for quiet
    quiet(bench, 60)
    for studio in people:
        studio.close()


def main() -> None:
    """Build, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--each", type=int, default=30, help="labels that each gives while the loop works")
    parser.add_argument("--rest", type=float, default=1.0, help="seconds that a person looks at an image")
    parser.add_argument("--upload", action="store_true", help="images in the bucket, featurised by the worker")
    parser.add_argument("--postgres", action="store_true", help="Label Studio on PostgreSQL instead of SQLite")
    parser.add_argument("--state-dir", type=Path, help="kept; else everything is made anew and thrown away")
    asked = parser.parse_args()
    with ExitStack() as open_:
        home = asked.state_dir or Path(open_.enter_context(tempfile.TemporaryDirectory(prefix="labelloop-bench-")))
        home.mkdir(parents=True, exist_ok=True)
        if asked.postgres:
            open_.enter_context(postgres(home))
        stack = open_.enter_context(make_stack(home, Console(stderr=True)))
        state = stack.start()
        stack.wait_ready()
        deployment = deployment_of(state)
        with at_rest(stack):  # the watcher shall find it whole
            bench = build(stack, deployment, asked, home)
        bench.facts = {"tasks": asked.tasks, "database": "PostgreSQL" if asked.postgres else "SQLite"}
        run(bench, asked)
        deployment.close()


if __name__ == "__main__":
    main()
