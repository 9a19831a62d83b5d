"""A project with a past, on any store: versions, snapshots, features, orders and runs, written as the services do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from labelloop.config.project import Retention
from labelloop.model.head import Head
from labelloop.objects.storage import ObjectStore
from labelloop.records.evidence import Evaluation, Outcome, Verdict
from labelloop.records.images import ImageFacts, Split
from labelloop.records.json import digest
from labelloop.records.snapshots import Latest
from labelloop.records.tasks import Annotation, QueuePlace, Task
from labelloop.records.versions import BackboneRecord, Version
from labelloop.store.catalogue import Catalogue
from labelloop.store.features import FeatureStore
from labelloop.store.registry import Draft, Registry
from labelloop.store.runs import RunStore
from labelloop.store.scores import ScoreStore
from labelloop.store.snapshots import SnapshotStore
from labelloop.upkeep.tidying import Tidier

STRICT = Retention(versions=1, days=1, log_days=1)
WEIGHTS = b"weights of "


@contextmanager
def lease(_name: str) -> Iterator[int]:
    yield 1


@dataclass
class World:
    """One project; `age` lets days pass for the tidier."""

    store: ObjectStore
    cache: Path
    policy: Retention = STRICT
    days: float = 0
    labels: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.registry, self.runs = Registry(self.store, lease), RunStore(self.store)
        self.snapshots, self.scores = SnapshotStore(self.store), ScoreStore(self.store)
        self.catalogue = Catalogue(self.store)

    def age(self, days: float) -> None:
        self.days += days

    def tidier(self) -> Tidier:
        self.registry = Registry(self.store, lease)
        return Tidier(self.store, self.registry, RunStore(self.store), self.policy,
                      now=lambda: datetime.now(UTC) + timedelta(days=self.days))  # fmt: skip

    def keys(self, prefix: str = "") -> set[str]:
        return {info.key for info in self.store.list(prefix)}

    def backbone(self, name: str, *, snapshot: str | None = None) -> BackboneRecord:
        weights = WEIGHTS + name.encode()
        record = BackboneRecord(name, "pixels", {}, {"size": 8}, 4, digest(weights), "of a test", snapshot)
        self.registry.add_backbone(record, weights)
        return record

    def label(self, task: int, label: str) -> str:
        """One label more; the snapshot after it."""
        self.labels[task] = label
        moment = "2026-01-01T00:00:00.000000Z"
        tasks = [Task(i, f"s3://images/{i}.png", moment, (Annotation(i, moment, moment, name),))
                 for i, name in self.labels.items()]  # fmt: skip
        snapshot = self.snapshots.freeze(tasks).id
        self.snapshots.set_latest(Latest(snapshot, len(tasks), moment, moment, len(tasks)))
        return snapshot

    def featurise(self, backbone: str, shard: str, *images: int) -> None:
        uris = [f"s3://images/{i}.png" for i in images]
        rows = np.full((len(uris), 4), len(images), dtype=np.float32)
        FeatureStore(self.store, backbone, self.cache).add(shard, uris, ["e"] * len(uris), rows)
        self.catalogue.add([ImageFacts(u, "e", digest(u.encode()), u, Split.TRAIN) for u in uris], shard)

    def version(self, backbone: str, snapshot: str, *, deploy: bool = True) -> Version:
        """Fitted, run recorded, ordered and (``deploy``) live."""
        run = self.runs.start("refresh", snapshot=snapshot, config="c", attempt=1, worker="w")
        number = 1 + len(self.registry.versions())
        head = Head(("cat", "dog"), np.full((2, 4), number, dtype=np.float32), np.zeros(2, dtype=np.float32))
        live = self.registry.live()
        version = self.registry.add(Draft(
            kind="refresh", backbone=backbone, head=head, snapshot=snapshot, config="c", code="1",
            parent=live.version if live else None, reference=None, recipe={"strength": 1.0},
            evaluation=Evaluation("refresh", 2, 2, ("cat", "dog")), verdict=Verdict(Outcome.PROMOTE, ("good",)),
            check_features=np.ones((1, 4), dtype=np.float32),
        ))  # fmt: skip
        if deploy:
            self.promote(version.name)
        place = QueuePlace("s3://images/1.png", 0.5, "cat", 0.9, blind=False, why="uncertain")
        self.scores.add(version.name, snapshot=snapshot, pool=1, policy="p", places=[place])
        self.runs.end(run, "promote", ("good",), version=version.name)
        return version

    def promote(self, name: str) -> None:
        live = self.registry.live()
        self.registry.deploy(name, expected=live.version if live else None, action="promote", by="test", why="")


def project(store: ObjectStore, cache: Path) -> World:
    """Four versions on two backbones, one after the other live; the first ones are of no use under `STRICT`."""
    world = World(store, cache)
    world.registry.set_initial_backbone(world.backbone("b1"))
    world.featurise("b1", "20260101T000000-a", 1, 2, 3)
    for task, label in ((1, "cat"), (2, "dog"), (1, "dog")):
        world.version("b1", world.label(task, label))
    tuned = world.label(4, "dog")
    world.backbone("b2", snapshot=tuned)
    world.featurise("b2", "20260102T000000-a", 1, 2, 3, 4)
    world.version("b2", world.label(5, "cat"))
    return world
