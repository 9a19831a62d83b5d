"""What a worker process keeps between jobs: connections, stores, features, the loaded backbone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from redis import Redis

from labelloop.catalogue import Catalogue
from labelloop.features import FeatureStore
from labelloop.images import ImageReader, Reader, s3_client
from labelloop.projects import ProjectRecord, ProjectStore, project_store
from labelloop.queue import RedisLease, connect
from labelloop.registry import BackboneRecord, Registry
from labelloop.runs import RunStore
from labelloop.scores import ScoreStore
from labelloop.settings import Settings, load_settings
from labelloop.snapshot import SnapshotStore
from labelloop.storage import ObjectStore, S3Store

if TYPE_CHECKING:
    from labelloop.net import Backbone


@dataclass
class ProjectContext:
    """One project's stores. Everything immutable that was read once stays in memory or on the local disk."""

    record: ProjectRecord
    store: ObjectStore
    registry: Registry
    snapshots: SnapshotStore
    catalogue: Catalogue
    runs: RunStore
    scores: ScoreStore
    cache: Path
    _features: dict[str, FeatureStore] = field(default_factory=dict)

    def features(self, backbone: str) -> FeatureStore:
        """The kept features under one backbone, up to date."""
        if backbone not in self._features:
            self._features[backbone] = FeatureStore(self.store, backbone, self.cache)
        self._features[backbone].update()
        return self._features[backbone]


class Context:
    """Built once per worker process, on its first job."""

    def __init__(self, settings: Settings, redis: Redis, store: ObjectStore, images: Reader) -> None:
        self.settings, self.redis, self.images = settings, redis, images
        self._store = store
        self._projects = ProjectStore(store, settings.studio_server)
        self._contexts: dict[str, ProjectContext] = {}
        self._backbone: tuple[str, Backbone] | None = None

    def project(self, key: str) -> ProjectContext:
        """One project's stores, with its config as it is now."""
        record = self._projects.get(key)
        if key not in self._contexts:
            self._contexts[key] = self._build(record)
        self._contexts[key].record = record
        return self._contexts[key]

    def backbone(self, project: ProjectContext, record: BackboneRecord) -> Backbone:
        """The network, loaded and verified; the last one used stays loaded."""
        from labelloop import net  # torch: seconds to import, and not every job needs it

        if self._backbone is None or self._backbone[0] != record.id:
            loaded = net.load(record, project.registry.backbone_weights(record), device=net.best_device())
            net.verify(loaded)
            self._backbone = (record.id, loaded)
        return self._backbone[1]

    def _build(self, record: ProjectRecord) -> ProjectContext:
        store = project_store(self._store, record.key)
        return ProjectContext(
            record=record, store=store, registry=Registry(store, RedisLease(self.redis, record.key)),
            snapshots=SnapshotStore(store), catalogue=Catalogue(store), runs=RunStore(store),
            scores=ScoreStore(store), cache=self.settings.cache_dir / record.key,
        )  # fmt: skip


def make_context() -> Context:
    """From the environment."""
    settings = load_settings()
    s3 = s3_client(settings)
    redis = connect(settings.redis_url)
    return Context(settings, redis, S3Store(s3, settings.state_bucket), ImageReader(s3, settings.image_buckets))
