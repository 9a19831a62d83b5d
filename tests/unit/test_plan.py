"""What is queued is derived from stores alone: nothing twice, nothing forgotten, failures counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

import sync.plan
from labelloop.catalogue import Catalogue
from labelloop.config import parse_config
from labelloop.features import FeatureIndex, FeatureStore
from labelloop.labels import make_label_config
from labelloop.projects import ProjectRecord
from labelloop.queue import JobKind
from labelloop.records import Annotation, Bucket, ImageFacts, Task
from labelloop.registry import Registry
from labelloop.requests import RequestStore
from labelloop.runs import RunStore
from labelloop.snapshot import Snapshot, SnapshotStore
from labelloop.storage import MemoryStore
from sync.plan import Plan, Planner

CONFIG = parse_config({"refresh": {"after": 4, "throttle_s": 0}}, "the test")
RECORD = ProjectRecord("main", 1, 0, "t", CONFIG, make_label_config(["cat", "dog"]), "s3://images/t/")


@dataclass
class FakeQueue:
    """Remembers what was queued, until the test says that it has ended."""

    jobs: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def enqueue(self, _kind: JobKind, job_id: str, payload: Mapping[str, Any]) -> bool:
        if job_id in self.jobs:
            return False
        self.jobs[job_id] = payload
        return True

    def active(self, kind: JobKind, project: str) -> list[str]:
        return [i for i in self.jobs if i.startswith(f"{kind.name}_{project}_")]


@contextmanager
def lease(_name: str) -> Iterator[int]:
    yield 1


class World:
    """One project whose images all train and have features."""

    def __init__(self) -> None:
        self.store, self.queue = MemoryStore(), FakeQueue()
        self.runs, self.snapshots = RunStore(self.store), SnapshotStore(self.store)
        self.requests, self.catalogue = RequestStore(self.store), Catalogue(self.store)
        self.index = FeatureIndex(self.store, "b")
        self.labels: list[str] = []
        self.planner = self.restarted()

    def restarted(self) -> Planner:
        registry = Registry(self.store, lease)
        return Planner(RECORD, RunStore(self.store), self.requests, self.queue, SnapshotStore(self.store), registry)  # type: ignore[arg-type]

    def label(self, *names: str, tmp: Any) -> None:
        import numpy as np

        uris = [f"s3://images/t/{len(self.labels) + i}" for i in range(len(names))]
        self.catalogue.add([ImageFacts(u, "e", u, u, Bucket.TRAIN) for u in uris], f"s{len(self.labels)}")
        rows = np.zeros((len(uris), 2), dtype=np.float32)
        FeatureStore(self.store, "b", tmp).add(f"s{len(self.labels)}", uris, ["e"] * len(uris), rows)
        self.labels += names

    def plan(self) -> Plan:
        self.catalogue.update()
        self.index.update()
        return self.planner.plan(self.snapshot(), None, self.catalogue, self.index)

    def snapshot(self) -> Snapshot:
        tasks = [
            Task(i, f"s3://images/t/{i}", "t", (Annotation(i, "t", "t", name),)) for i, name in enumerate(self.labels)
        ]
        return self.snapshots.freeze(tasks)

    def finish(self, outcome: str, kind: str = "refresh") -> None:
        (job_id, payload) = self.queue.jobs.popitem()
        assert job_id.startswith(kind)
        run = self.runs.start(
            kind, snapshot=payload["snapshot"], config=CONFIG.hash, attempt=payload["attempt"], worker="w"
        )
        self.runs.end(run, outcome, ("because",))


@pytest.fixture
def world() -> World:
    return World()


def test_a_batch_is_queued_once_and_not_again_until_the_next(world: World, tmp_path: Any) -> None:
    world.label("cat", "cat", "cat", "dog", "dog", tmp=tmp_path)
    assert world.plan().decision.until_refresh == 1
    assert world.queue.jobs == {}
    world.label("dog", tmp=tmp_path)
    assert world.plan().running == ("refresh",)
    world.plan()
    assert len(world.queue.jobs) == 1
    world.finish("promote")
    assert world.plan().running == ()
    world.label("cat", "dog", "cat", tmp=tmp_path)
    assert world.plan().decision.until_refresh == 1
    world.label("dog", tmp=tmp_path)
    assert world.plan().running == ("refresh",)


def test_a_held_run_is_not_tried_again_on_the_same_labels(world: World, tmp_path: Any) -> None:
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    world.plan()
    world.finish("hold")
    assert world.plan().running == ()
    world.planner = world.restarted()
    assert world.plan().running == ()


def test_a_lost_queue_is_derived_again(world: World, tmp_path: Any) -> None:
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    world.plan()
    world.queue.jobs.clear()
    assert world.plan().running == ("refresh",)
    assert len(world.queue.jobs) == 1


def test_failures_are_tried_again_and_then_held_visibly(world: World, tmp_path: Any) -> None:
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    ids = []
    for _ in range(3):
        assert world.plan().running == ("refresh",)
        ids += list(world.queue.jobs)
        world.finish("failed")
    assert len(set(ids)) == 3
    held = world.plan()
    assert held.running == ()
    assert held.decision.waiting is not None
    assert "failed 3 times" in held.decision.waiting
    world.label(*["cat", "dog"] * 2, tmp=tmp_path)
    assert world.plan().running == ("refresh",)


def test_labels_without_features_are_waited_for(world: World, tmp_path: Any) -> None:
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    world.labels += ["cat"]
    plan = world.plan()
    assert plan.running == ()
    assert "features of 1" in str(plan.decision.waiting)


def test_a_dead_workers_run_counts_as_failed(world: World, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync.plan, "ORPHANED_S", 0)
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    world.plan()
    payload = world.queue.jobs.popitem()[1]
    world.runs.start("refresh", snapshot=payload["snapshot"], config=CONFIG.hash, attempt=1, worker="dead")
    world.planner.clean()
    assert [r.outcome for r in RunStore(world.store).all()] == ["failed"]
    assert world.plan().running == ("refresh",)
    assert next(iter(world.queue.jobs.values()))["attempt"] == 2


def test_a_persons_wish_is_kept_until_a_run_has_answered_it(world: World, tmp_path: Any) -> None:
    world.label(*["cat", "dog"] * 3, tmp=tmp_path)
    world.plan()
    world.finish("promote")
    world.requests.add("retrain", by="a person")
    assert world.plan().running == ("retrain",)
    world.queue.jobs.clear()
    world.planner = world.restarted()
    assert world.plan().running == ("retrain",)
    world.finish("hold", "retrain")
    assert world.plan().running == ()
    assert world.requests.open() == []
