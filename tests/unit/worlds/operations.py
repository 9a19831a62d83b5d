"""One project in memory with labels, features, runs and versions, for what commands show and export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from labelloop.clock import stamp
from labelloop.config.project import ProjectConfig
from labelloop.config.settings import load_settings
from labelloop.errors import StudioError
from labelloop.labels.results import make_label_config
from labelloop.model.head import Head
from labelloop.objects.storage import MemoryStore
from labelloop.records.evidence import Comparison, Evaluation, Outcome, Verdict
from labelloop.records.images import ImageFacts, Split
from labelloop.records.json import digest, to_dict
from labelloop.records.runs import Run
from labelloop.records.snapshots import Latest, Snapshot
from labelloop.records.tasks import Annotation, Seen, Task
from labelloop.records.versions import Version
from labelloop.store.catalogue import Catalogue
from labelloop.store.features import FeatureStore
from labelloop.store.projects import ProjectRecord, ProjectStore
from labelloop.store.registry import Draft, Registry
from labelloop.store.runs import RunStore
from labelloop.store.snapshots import SnapshotStore
from operations.deployment import Deployment

DAY = "2026-03-01T02:{:02d}:00.000000Z"
PREFIX = "s3://images/t/"


@contextmanager
def lease(_name: str) -> Iterator[int]:
    yield 1


class Nobody:
    """A Label Studio that does not answer."""

    def people(self) -> dict[int, str]:
        raise StudioError("away")

    def version(self) -> str:
        raise StudioError("away")


class OpsDeployment(Deployment):
    """Without servers: the lease is free, Label Studio is away."""

    def registry(self, record: ProjectRecord) -> Registry:
        return Registry(self.within(record), lease)

    @property
    def studio(self) -> Any:  # type: ignore[override]
        return Nobody()


class OpsWorld:
    """Build it up, then ask the commands' modules about it."""

    def __init__(self, **config: Any) -> None:
        self.root = MemoryStore()
        projects = ProjectStore(self.root, "main")
        settings = load_settings({"LABELLOOP_STUDIO_URL": "http://127.0.0.1:1"})
        redis = Redis(port=1, socket_connect_timeout=0.1, retry=Retry(NoBackoff(), 0))  # refuses at once
        redis.publish = lambda *_: None  # type: ignore[method-assign, assignment, misc]
        queue: Any = SimpleNamespace(redis=redis)
        self.record = ProjectRecord("main", 1, 0, "pets", ProjectConfig(name="pets", **config),
                                    make_label_config(["cat", "dog", "owl"]), PREFIX)  # fmt: skip
        projects.put(self.record)
        s3: Any = None
        self.deployment = OpsDeployment(settings, s3, self.root, queue, projects)
        self.store = self.deployment.within(self.record)
        self.snapshots, self.runs = SnapshotStore(self.store), RunStore(self.store)
        self.registry = Registry(self.store, lease)
        self.tasks: dict[int, Task] = {}

    def images(self, names: Sequence[str], bucket: Split = Split.TRAIN, *, group: str = "", tmp: Path) -> None:
        """Known images with features; ``group``: all of them show the same."""
        uris = [PREFIX + name for name in names]
        facts = [ImageFacts(u, "e", digest(image_bytes(u)), group or u, bucket) for u in uris]
        Catalogue(self.store).add(facts, stamp())
        rows = np.zeros((len(uris), 2), dtype=np.float32)
        FeatureStore(self.store, "b", tmp).add(stamp(), uris, ["e"] * len(uris), rows)

    def answer(
        self, task: int, name: str, label: str | None, *, minute: int = 0, by: int = 7, **more: Any
    ) -> Annotation:
        """One more answer to a task; a task that there is not yet is made."""
        known = self.tasks.get(task) or Task(task, PREFIX + name, DAY.format(minute))
        given = Annotation(100 * task + len(known.annotations), DAY.format(minute), DAY.format(minute), label,
                           completed_by=by, **more)  # fmt: skip
        self.tasks[task] = Task(task, known.uri, DAY.format(minute), (*known.annotations, given))
        return given

    def freeze(self) -> Snapshot:
        """A snapshot of the answers so far, the latest."""
        snapshot = self.snapshots.freeze(self.tasks.values())
        latest = self.snapshots.latest()
        count = sum(len(t.annotations) for t in self.tasks.values())
        self.snapshots.set_latest(Latest(snapshot.id, latest.sequence + 1 if latest else 1, "c", DAY, count))
        return snapshot

    def run(
        self, outcome: str, snapshot: str, *reasons: str, kind: str = "refresh", version: Version | None = None,
        found: Evaluation | None = None, **detail: Any,
    ) -> Run:  # fmt: skip
        """A run that has ended."""
        begun = self.runs.start(
            kind, snapshot=snapshot, config=self.record.config.hash, attempt=1, worker="w-1", queued_at=None
        )
        more = {"evaluation": to_dict(found)} if found else {}
        return self.runs.end(begun, outcome, reasons or ("because",), version=version.name if version else None,
                             detail={**more, **detail})  # fmt: skip

    def version(self, snapshot: str, *, kind: str = "refresh", found: Evaluation | None = None) -> Version:
        """A version that the gate would promote."""
        head = Head(("cat", "dog"), np.ones((2, 2), dtype=np.float32), np.zeros(2, dtype=np.float32), 1.0)
        live = self.registry.live()
        return self.registry.add(
            Draft(
                kind=kind, backbone="b", head=head, snapshot=snapshot, config=self.record.config.hash, code="0.1.0",
                parent=live.version if live else None, reference=None, recipe={"strength": 0.5, "seed": 0},
                evaluation=found or evaluation(), verdict=Verdict(Outcome.PROMOTE, ("good",)),
                check_features=np.ones((1, 2), dtype=np.float32),
            )
        )  # fmt: skip

    def deploy(self, version: Version, action: str = "deploy", why: str = "") -> None:
        """Make it live."""
        live = self.registry.live()
        self.registry.deploy(version.name, expected=live.version if live else None, action=action, by="test", why=why)


def image_bytes(uri: str) -> bytes:
    """What an image of the world is made of."""
    return f"bytes of {uri}".encode()


def evaluation(labels: int = 6, **more: Any) -> Evaluation:
    """A refresh that was as good."""
    compared = Comparison("train labels, out of fold", labels, 0.8, 0.85, 0.05, -0.1, 0.2, 1)
    values: dict[str, Any] = {
        "new_labels": 2, "classes": ("cat", "dog"), "accuracy": 0.85, "accuracy_low": 0.7, "accuracy_high": 0.95,
        "majority": 0.5, "judged_on": labels, "comparison": compared,
    }  # fmt: skip
    return Evaluation("refresh", labels, **{**values, **more})


def seen(label: str | None = "cat") -> Seen:
    """A pre-label."""
    return Seen("v1", label)
