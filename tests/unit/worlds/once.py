"""A project whose runs can die, or freeze and come back, at any step: real jobs and planner, no servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import sync.plan
from labelloop.queue.jobs import JobKind
from labelloop.records.images import Split
from labelloop.records.runs import Run
from labelloop.store.features import FeatureIndex
from labelloop.store.requests import RequestStore
from labelloop.store.runs import RunStore
from labelloop.store.snapshots import SnapshotStore
from retrain_worker import jobs
from sync.plan import Planner
from tests.unit.worlds.learning import LearningWorld

CONFIG = {
    "backbone": {"name": "small_cnn", "image_size": 16, "options": {"filters": [4], "dense": 8, "dropout": 0.0}},
    "retrain": {"epochs": 1, "learning_rate": 0.01, "backbone_rate": 1.0, "automatic": False},
    "refresh": {"after": 10, "throttle_s": 0},
}


class Died(BaseException):
    """SIGKILL: nothing catches it."""


@dataclass
class Jobs:
    """A queue whose only worker is the test."""

    waiting: dict[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)
    at_look: Callable[[], None] = lambda: None  # happens as the watcher looks at the queue

    def enqueue(self, kind: JobKind, job_id: str, payload: Mapping[str, Any]) -> bool:
        return self.waiting.setdefault(job_id, (kind.name, payload)) == (kind.name, payload)

    def active(self, kind: JobKind, project: str) -> list[str]:
        self.at_look()
        return [i for i in [*self.waiting, *self.running] if i.startswith(f"{kind.name}_{project}_")]

    def at_work(self, _kind: JobKind, _project: str) -> set[str]:
        return set()  # whoever runs something in these tests has no heartbeat: it is dead, or believed to be


class OnceWorld:
    """Labels that want a refresh, and a person who wants a retrain."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.learning = LearningWorld(folder, images=110, config=CONFIG)
        self.project, self.queue = self.learning.project, Jobs()
        self.runs, self.registry = RunStore(self.project.store), self.project.registry
        self.requests = RequestStore(self.project.store)
        self.index = FeatureIndex(self.project.store, self._backbone())
        monkeypatch.setattr(sync.plan, "RETRY_CAP_S", 0)
        monkeypatch.setattr(sync.plan, "ORPHANED_S", -1)
        monkeypatch.setattr(self.learning.context, "project", lambda _key: self.project)
        monkeypatch.setattr(jobs, "context", lambda: self.learning.context)
        monkeypatch.setattr(jobs, "_score", lambda *_: None)
        self.planner = self.another_watcher()
        self.learning.label([*self.learning.uris(Split.TRAIN)[:40], *self.learning.uris(Split.TEST)[:15]])

    def another_watcher(self) -> Planner:
        snapshots = SnapshotStore(self.project.store)
        return Planner(
            self.project.record, RunStore(self.project.store), self.requests, self.queue, snapshots, self.registry,  # type: ignore[arg-type]
        )  # fmt: skip

    def _backbone(self) -> str:
        record = self.registry.current_backbone()
        assert record is not None
        return record.id

    # --- what happens

    def plan(self, planner: Planner | None = None) -> None:
        live = self.registry.live()
        version = self.registry.version(live.version) if live else None
        latest = self.project.snapshots.latest()
        assert latest is not None
        backbone = self.registry.current_backbone()
        if backbone and backbone.id != self.index.backbone:
            self.index = FeatureIndex(self.project.store, backbone.id)
        self.index.update()
        snapshot = self.project.snapshots.load(latest.snapshot)
        (planner or self.planner).plan(snapshot, version, self.project.catalogue, self.index)

    def take(self, kind: str) -> Callable[[], Any]:
        """One worker takes the job of a kind; what it does then."""
        name = next(i for i, (k, _) in self.queue.waiting.items() if k == kind)
        payload = self.queue.waiting.pop(name)[1]
        return lambda: {"refresh": jobs.refresh, "retrain": jobs.retrain}[kind](**payload)

    def until_quiet(self) -> None:
        """The watcher plans and a healthy worker works, until nothing is wanted any more."""
        for _ in range(12):
            self.plan()
            if not self.queue.waiting:
                return
            self.take(next(iter(self.queue.waiting.values()))[0])()
        raise AssertionError(f"it never rests: {[(r.kind, r.outcome, r.wish, r.reasons) for r in self.runs.all()]}")

    # --- what came of it

    def verdicts(self, kind: str) -> list[Run]:
        return [r for r in RunStore(self.project.store).all() if r.kind == kind and r.done]

    def deployed(self, kind: str) -> list[str]:
        return [d.version for d in self.registry.deployments() if d.by == kind]
