"""A project with digits to learn from, for tests of the jobs: real stores and networks, no servers."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sklearn.datasets import load_digits

from labelloop.config.project import BackboneSpec, ProjectConfig, parse_config
from labelloop.config.settings import load_settings
from labelloop.labels.results import make_label_config
from labelloop.likeness.near import NearIndex
from labelloop.objects.storage import MemoryStore
from labelloop.records.images import Split
from labelloop.records.snapshots import Latest
from labelloop.records.tasks import Annotation, Task
from labelloop.records.versions import Version
from labelloop.store.catalogue import Catalogue
from labelloop.store.projects import ProjectRecord, project_store
from labelloop.store.registry import Registry
from labelloop.store.runs import RunStore
from labelloop.store.scores import ScoreStore
from labelloop.store.snapshots import SnapshotStore
from retrain_worker.context import Context, ProjectContext
from retrain_worker.featurise import featurise
from retrain_worker.refresh import RunResult, refresh
from retrain_worker.retrain import retrain

CLASSES = tuple(str(n) for n in range(10))
AT = "2026-01-01T00:00:00Z"


@functools.cache
def digits() -> tuple[tuple[bytes, str], ...]:
    """(PNG bytes, class) of scikit-learn's handwritten digits, 32 pixels wide."""
    found = load_digits()
    return tuple((_png(image), str(label)) for image, label in zip(found.images, found.target, strict=True))


def _png(image: Any) -> bytes:
    out = io.BytesIO()
    pixels = Image.fromarray((255 - image * (255 / 16)).astype("uint8"), "L")
    pixels.resize((32, 32), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


@dataclass
class Images:
    """Images by uri, and which of them somebody has read."""

    kept: dict[str, bytes] = field(default_factory=dict)
    read_uris: list[str] = field(default_factory=list)

    def read(self, uri: str) -> tuple[bytes, str]:
        self.read_uris.append(uri)
        return self.kept[uri], "etag"


@contextmanager
def lease(_name: str) -> Iterator[int]:
    yield 1


def no_redis() -> Redis:
    """Refuses at once: nobody waits for tries that cannot succeed."""
    return Redis(port=1, socket_connect_timeout=0.1, retry=Retry(NoBackoff(), 0))


class LearningWorld:
    """``images`` digits, featurised; people label them with `label`, jobs run in this process."""

    def __init__(
        self, folder: Path, *, images: int = 600, config: Mapping[str, Any] | None = None,
        classes: Sequence[str] = CLASSES,
    ) -> None:  # fmt: skip
        buckets = {"test": 0.3, "audit": 0.05, "near_duplicates": False}  # digits are drawn apart: nothing to look for
        spec = {"backbone": {"name": "pixels"}, "buckets": buckets, **(config or {})}
        self.config: ProjectConfig = parse_config(spec, "test")
        assert isinstance(self.config.backbone, BackboneSpec)
        self.images = Images()
        self.truth: dict[str, str] = {}
        self._take(images)
        record = ProjectRecord("main", 1, 1700000000, "digits", self.config, make_label_config(classes), "s3://images/")
        store = project_store(MemoryStore(), record.key)
        self.context = Context(
            load_settings({}),
            no_redis(),
            MemoryStore(),
            self.images,
        )
        self.project = ProjectContext(
            record=record, store=store, registry=Registry(store, lease), snapshots=SnapshotStore(store),
            catalogue=Catalogue(store), runs=RunStore(store), scores=ScoreStore(store), cache=folder / "cache",
            images=self.images, cache_max_bytes=10**9,
        )  # fmt: skip
        self.labels: dict[str, str] = {}
        featurise(self.context, self.project, sorted(self.images.kept))
        self.project.catalogue.update()

    def reopened(self, folder: Path) -> ProjectContext:
        """The project as a worker sees it that has just begun, on another machine."""
        store = self.project.store
        return replace(
            self.project, registry=Registry(store, lease), snapshots=SnapshotStore(store), catalogue=Catalogue(store),
            runs=RunStore(store), scores=ScoreStore(store), cache=folder / "cache", near=NearIndex(), _features={},
            _looked_at=0,
        )  # fmt: skip

    def _take(self, images: int) -> list[str]:
        first, uris = len(self.truth), []
        for i, (data, label) in enumerate(digits()[first : first + images], first):
            uris.append(f"s3://images/digits/{i:04d}.png")
            self.images.kept[uris[-1]], self.truth[uris[-1]] = data, label
        return uris

    def add(self, images: int) -> None:
        """So many more images."""
        featurise(self.context, self.project, self._take(images))
        self.project.catalogue.update()

    def uris(self, *buckets: Split) -> list[str]:
        """Usable images of these buckets, one per duplicate group, in a fixed order."""
        kept = self.project.catalogue.images
        groups = {f.group: f.uri for f in sorted(kept.values(), key=lambda f: f.uri, reverse=True)}
        return sorted(u for u in groups.values() if kept[u].bucket in buckets)

    def label(self, uris: Sequence[str], wrong: Mapping[str, str] | None = None) -> str:
        """People label these, rightly but for ``wrong``; the new snapshot's id."""
        self.labels |= {u: self.truth[u] for u in uris} | dict(wrong or {})
        return self.freeze(self.labels)

    def freeze(self, labels: Mapping[str, str]) -> str:
        """A snapshot of exactly these labels."""
        tasks = [
            Task(i, uri, AT, (Annotation(i, AT, AT, labels[uri]),))
            for i, uri in enumerate(sorted(self.truth))
            if uri in labels
        ]
        snapshot = self.project.snapshots.freeze(tasks)
        self.project.snapshots.set_latest(Latest(snapshot.id, 1, AT, AT))
        return snapshot.id

    def refresh(self, snapshot: str) -> RunResult:
        return refresh(self.context, self.project, snapshot)

    def retrain(self, snapshot: str) -> RunResult:
        judged = retrain(self.context, self.project, snapshot)
        judged.afterwards()
        return judged

    def live(self) -> Version:
        live = self.project.registry.live()
        assert live is not None
        return self.project.registry.version(live.version)

    def configure(self, change: Mapping[str, Any]) -> None:
        """Other settings from now on."""
        spec = {**self.config.model_dump(mode="json"), **change}
        self.config = parse_config(spec, "test")
        self.project.record = replace(self.project.record, config=self.config)
