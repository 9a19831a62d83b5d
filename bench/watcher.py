"""`python -m bench.watcher`: what one look of the watcher costs by itself, in projects of 1e4, 1e5 and 1e6 tasks.

Label Studio, object storage and the queue are the fakes of the tests (tests/acceptance/test_studio_contract.py holds
the first to the real one); what they do is not counted, what they are asked for and answer is. The peer is a look that
reads the full listing, as a watcher without a change feed has to.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import structlog

from labelloop.clock import now
from labelloop.config.project import parse_config
from labelloop.labels.results import make_label_config
from labelloop.objects.storage import MemoryStore
from labelloop.records.images import ImageFacts, Split
from labelloop.records.json import canonical, to_dict
from labelloop.records.tasks import QueuePlace
from labelloop.records.versions import COLD_START, BackboneRecord
from labelloop.store.projects import ProjectRecord, ProjectStore, project_store
from labelloop.store.scores import ScoreStore
from sync.answers.feed import Feed
from sync.project import Deps, ProjectWatch
from tests.fakes.studio import FakeStudio

CLASSES = tuple("0123456789")
CONFIG = make_label_config(CLASSES)
LABELLED = 200
SHARD = 4096  # rows, as compaction leaves them
FIRST, STAMP = datetime(2026, 1, 1, tzinfo=UTC), "%Y%m%dT%H%M%S%f"
STUB_BYTES = 420  # of one task in Label Studio's answer, measured


@dataclass
class Meter:
    """What was asked, and the time that the answering side took."""

    requests: int = 0
    bytes: int = 0
    theirs_s: float = 0.0
    nested: bool = False

    def call(self, work: Callable[[], Any], size: Callable[[Any], int]) -> Any:
        if self.nested:
            return work()
        self.nested, began = True, time.process_time()
        try:
            found = work()
        finally:
            self.nested = False
            self.theirs_s += time.process_time() - began
        self.requests += 1
        self.bytes += size(found)
        return found


class Metered:
    """A fake whose every call is counted; pages of a feed one by one."""

    def __init__(self, inner: Any, meter: Meter) -> None:
        self._inner, self._meter = inner, meter

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if not callable(method):
            return method
        if name in {"changes", "all_tasks", "list"}:
            return lambda *args, **options: self._pages(method(*args, **options))
        return lambda *args, **options: self._meter.call(lambda: method(*args, **options), _size)

    def _pages(self, found: Iterator[Any]) -> Iterator[Any]:
        end = object()
        self._meter.requests += 1  # also where nothing comes
        while True:
            began = time.process_time()
            item = next(found, end)
            self._meter.theirs_s += time.process_time() - began
            if item is end:
                return
            self._meter.bytes += _size(item)
            self._meter.requests += isinstance(item, list) and len(item) == 1000
            yield item


def _size(found: Any) -> int:
    if isinstance(found, bytes):
        return len(found)
    if isinstance(found, tuple) and found and isinstance(found[0], bytes):
        return len(found[0])
    if isinstance(found, list):
        return STUB_BYTES * len(found)
    return 100


@dataclass
class Queue:
    """Jobs are taken and never end."""

    redis: Any = None
    jobs: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def enqueue(self, _kind: Any, job: str, payload: Mapping[str, Any], **_: Any) -> bool:
        return self.jobs.setdefault(job, payload) is payload

    def active(self, kind: Any, project: str) -> list[str]:
        return [j for j in self.jobs if j.startswith(f"{kind.name}_{project}_")]

    def at_work(self, _kind: Any, _project: str) -> set[str]:
        return set()


@dataclass(frozen=True)
class Look:
    """What one look cost."""

    cpu_s: float
    requests: int
    bytes: int


class World:
    """A project whose images all have features, with an order that is pushed."""

    def __init__(self, tasks: int) -> None:
        self.meter = Meter()
        schema = ProjectRecord("main", 1, 0, "t", parse_config({}, "the bench"), CONFIG, "s3://images/t/").schema
        self.record = ProjectRecord("main", 1, 0, "t", parse_config({}, "the bench"), CONFIG, "s3://images/t/")
        self.studio, self.memory = FakeStudio(schema), MemoryStore()
        self.uris = [f"s3://images/t/{i:08x}.png" for i in range(tasks)]
        self.ids = [self.studio.add_task(uri) for uri in self.uris]
        for task in self.ids[:LABELLED]:
            self.studio.annotate(task, CLASSES[task % 10])
        self._fill()
        self.next = LABELLED
        self.restart()

    def restart(self) -> None:
        """A watcher that has seen nothing yet."""
        store: Any = Metered(self.memory, self.meter)
        studio: Any = Metered(self.studio, self.meter)
        queue: Any = Queue()
        deps = Deps(studio, store, ProjectStore(store, "main"), queue, lambda _uri: lambda: iter(()))
        self.watch = ProjectWatch(self.record, deps)

    def _fill(self) -> None:
        within = project_store(self.memory, self.record.key)
        backbone = BackboneRecord("b", "pixels", {}, {}, 2, "", "")
        within.put("backbones/b/backbone.json", canonical(to_dict(backbone)))
        within.put("backbones/initial.json", canonical({"id": "b"}))
        for number, start in enumerate(range(0, len(self.uris), SHARD)):
            part, name = self.uris[start : start + SHARD], f"{FIRST + number * timedelta(minutes=2):{STAMP}}-aaaaaa"
            facts = [ImageFacts(u, "e", u, u, Split.TRAIN if i % 8 else Split.TEST) for i, u in enumerate(part)]
            within.put(f"catalogue/{name}.jsonl", b"\n".join(canonical(to_dict(f)) for f in facts))
            index = {"uris": part, "etags": ["e"] * len(part), "sha256": ""}
            within.put(f"features/b/index/{name}.json", canonical(index))
        places = [
            QueuePlace(u, (i + 1) / 1000, None, None, False, "cold-start") for i, u in enumerate(self.uris[-600:])
        ]
        ScoreStore(within).add(COLD_START, snapshot=None, pool=len(self.uris), policy="", places=places)

    def label(self, count: int) -> None:
        """What people do between two looks."""
        for task in self.ids[self.next : self.next + count]:
            self.studio.annotate(task, CLASSES[task % 10])
        self.next += count

    def look(self, work: Callable[[], object]) -> Look:
        """Our own part of it."""
        meter = self.meter
        meter.requests, meter.bytes, meter.theirs_s = 0, 0, 0.0
        began = time.process_time()
        work()
        return Look(time.process_time() - began - meter.theirs_s, meter.requests, meter.bytes)

    def looks(self, kind: str, repeats: int) -> Look:
        """The median of several."""
        found = []
        for _ in range(repeats):
            self.label(10 if kind == "changes" else 0)
            self.watch._due.clear()  # whatever is done by the clock is due
            found.append(self.look(lambda: self.watch.turn(nudged=kind == "changes")))
        return _median(found)

    def listing(self) -> Look:
        """The peer: everything is read."""
        feed = Feed(Metered(self.studio, self.meter), 1, self.record.schema, shown=lambda _uri, answer: answer.seen)
        return self.look(feed.reconcile)


def _median(looks: list[Look]) -> Look:
    return Look(*(float(np.median([getattr(x, name) for x in looks])) for name in ("cpu_s", "requests", "bytes")))  # type: ignore[arg-type]


def measure(tasks: int, repeats: int) -> dict[str, Look]:
    """All kinds of looks at one size."""
    world = World(tasks)
    world.watch.turn(nudged=True)  # begins: reads everything once
    for _ in range(3):
        world.watch.turn(nudged=True)
    gc.collect()
    gc.freeze()
    found = {kind: world.looks(kind, repeats) for kind in ("quiet", "changes")}
    return {**found, "listing": world.listing()}


def slope(sizes: list[int], values: list[float]) -> float:
    """Of the line through the logarithms: 0 means independent of the size, 1 proportional."""
    return float(np.polyfit(np.log10(sizes), np.log10(np.maximum(values, 1e-9)), 1)[0])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=lambda text: [int(float(s)) for s in text.split(",")], default="1e4,1e5,1e6")
    parser.add_argument("--repeats", type=int, default=31)
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    results = {}
    for size in asked.sizes:
        results[size] = measure(size, asked.repeats)
        for kind, look in results[size].items():
            rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            line = {"bench": "watcher", "look": kind, "tasks": size, **asdict(look), "peak_rss_mb": round(rss)}
            shown = f"{look.cpu_s * 1000:10.2f} ms  {look.requests:6.0f} requests  {look.bytes:12,.0f} bytes"
            print(f"{size:>9,} {kind:>8}  {shown}")
            print(json.dumps({**line, "at": now()}))
    for kind in ("quiet", "changes", "listing"):
        slopes = {
            what: round(slope(asked.sizes, [getattr(results[s][kind], what) for s in asked.sizes]), 3)
            for what in ("cpu_s", "requests", "bytes")
        }
        print(f"log-log slope, {kind}: {slopes}")
        print(json.dumps({"bench": "watcher", "look": kind, "slope": slopes, "target": 0.1}))


if __name__ == "__main__":
    main()
