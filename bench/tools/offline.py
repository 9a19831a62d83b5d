"""A project in this process, its images in class folders: the workers' own jobs, without servers and queues."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from labelloop.config.project import ProjectConfig
from labelloop.config.settings import load_settings
from labelloop.errors import ImageUnreadableError
from labelloop.labels.results import make_label_config
from labelloop.likeness.near import NearIndex, perceptual_hash
from labelloop.objects.storage import MemoryStore, ObjectStore
from labelloop.records.json import digest
from labelloop.records.snapshots import Latest
from labelloop.records.tasks import Annotation, Task
from labelloop.store.catalogue import Catalogue
from labelloop.store.projects import ProjectRecord, project_store
from labelloop.store.registry import Registry
from labelloop.store.runs import RunStore
from labelloop.store.scores import ScoreStore
from labelloop.store.snapshots import SnapshotStore
from operations.projects.imagefolder import LabelledFile, classes_of, scan
from retrain_worker.context import Context, ProjectContext
from retrain_worker.featurise import featurise

PREFIX = "s3://images/"
AT = "2026-01-01T00:00:00Z"


class Files:
    """Images by address, from the disk."""

    def __init__(self, files: Sequence[LabelledFile]) -> None:
        self._paths = {PREFIX + f.key: f.path for f in files}

    def read(self, uri: str) -> tuple[bytes, str]:
        if uri not in self._paths:
            raise ImageUnreadableError(f"{uri} is not one of ours")
        data = self._paths[uri].read_bytes()
        return data, digest(data)[:32]


class OfflineProject:
    """All images of a folder, featurised, and one snapshot in which each has its folder's label.

    ``store``: where it is kept; another process that gives the same one finds everything there.
    """

    def __init__(
        self, config: ProjectConfig, files: Sequence[LabelledFile], folder: Path, kept: ObjectStore | None = None
    ) -> None:
        self.images, classes = Files(files), classes_of(files)
        record = ProjectRecord("main", 1, 1700000000, config.name, config, make_label_config(classes), PREFIX)
        store = project_store(kept or MemoryStore(), record.key)
        nobody = Redis(port=1, socket_connect_timeout=0.1, retry=Retry(NoBackoff(), 0))  # refuses at once
        self.context = Context(load_settings(), nobody, MemoryStore(), self.images)
        self.project = ProjectContext(
            record=record, store=store, registry=Registry(store, _lease), snapshots=SnapshotStore(store),
            catalogue=Catalogue(store), runs=RunStore(store), scores=ScoreStore(store), cache=folder / "cache",
            images=self.images, cache_max_bytes=10**10,
        )  # fmt: skip
        began = time.monotonic()
        self.project.catalogue.update()
        known = self.project.catalogue.images
        featurise(self.context, self.project, sorted({PREFIX + f.key for f in files} - known.keys()))
        self.featurised_s = time.monotonic() - began
        self.project.catalogue.update()
        tasks = [Task(i, PREFIX + f.key, AT, (Annotation(i, AT, AT, f.label),)) for i, f in enumerate(files)]
        self.snapshot = self.project.snapshots.freeze(tasks).id
        self.project.snapshots.set_latest(Latest(self.snapshot, 1, AT, AT))


def without_shared(train: Sequence[LabelledFile], test: Sequence[LabelledFile]) -> list[LabelledFile]:
    """The train images that show nothing which a test image shows, too (perceptual hash)."""
    index = NearIndex()
    index.add((perceptual_hash(f.path.read_bytes()), f.key) for f in test)
    return [f for f in train if not index.near(perceptual_hash(f.path.read_bytes()))]


def folders(train: Path, test: Path | None, share: float) -> tuple[list[LabelledFile], list[LabelledFile]]:
    """Images to learn from and images to judge on; without a test folder, a share of them by a hash of their paths."""
    if test:
        return scan(train, "train/"), scan(test, "test/")
    files = scan(train, "")
    held = {f.key for f in files if int(digest(f.key.encode())[:8], 16) / 16**8 < share}
    return [f for f in files if f.key not in held], [f for f in files if f.key in held]


@contextmanager
def _lease(_name: str) -> Iterator[int]:
    yield 1
