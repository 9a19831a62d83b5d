"""What a worker process keeps between jobs: connections, stores, features, the loaded backbone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from redis import Redis

from labelloop import cache
from labelloop.catalogue import Catalogue
from labelloop.features import FeatureStore
from labelloop.images import ImageReader, Reader, s3_client
from labelloop.mirror import Mirror, MirroredReader
from labelloop.near import NearIndex
from labelloop.projects import ProjectRecord, ProjectStore, project_store
from labelloop.queue import RedisLease
from labelloop.registry import BackboneRecord, Registry
from labelloop.rotation import redis_client
from labelloop.runs import RunStore
from labelloop.schema import LabelRules
from labelloop.scores import ScoreStore
from labelloop.settings import Settings, load_settings
from labelloop.snapshot import Snapshot, SnapshotStore
from labelloop.storage import ObjectStore, S3Store

if TYPE_CHECKING:
    from labelloop.net import Backbone


OPEN_FEATURES = 3  # backbones whose features a project keeps at hand: the live one's, an older one's, a new one's


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
    images: Reader  # also of what the watcher has copied for this project
    cache_max_bytes: int  # of all projects' together
    near: NearIndex = field(default_factory=NearIndex)  # of the images of the catalogue, see `look_again`
    _features: dict[str, FeatureStore] = field(default_factory=dict)
    _looked_at: int = 0

    @property
    def rules(self) -> LabelRules:
        """What each class counts as, by the config of now."""
        return LabelRules.of(self.record.config)

    def look_again(self) -> None:
        """Take what the catalogue has learned since into the index of near duplicates."""
        images = self.catalogue.images  # what is new stands last
        new = list(islice(images.values(), self._looked_at, None))
        self.near.add((f.phash, f.group) for f in new)
        self._looked_at += len(new)

    def snapshot(self, name: str) -> Snapshot:
        """A snapshot with classes as they count now, whenever it was frozen."""
        return self.rules.read(self.snapshots.load(name))

    def features(self, backbone: str) -> FeatureStore:
        """The kept features under one backbone, up to date."""
        found = self._features.pop(backbone, None)
        if found is None:
            found = FeatureStore(self.store, backbone, self.cache)
            cache.bound(self.cache.parent, self.cache_max_bytes)  # one more is about to come
        self._features[backbone] = found  # the one used last comes last
        if len(self._features) > OPEN_FEATURES:
            del self._features[next(iter(self._features))]
        cache.mark_used(cache.folder(self.cache, backbone))
        found.update()
        return found

    def keep_features(self, shards: Mapping[str, Collection[str]]) -> None:
        """Let go of this machine's copies of all others. ``shards``: backbone -> those that there are."""
        self._features = {name: store for name, store in self._features.items() if name in shards}
        cache.clear(self.cache.parent, self.record.key, shards)
        cache.bound(self.cache.parent, self.cache_max_bytes)


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
            images=MirroredReader(self.images, Mirror(store)),
            cache_max_bytes=self.settings.cache_max_bytes,
        )  # fmt: skip


def make_context() -> Context:
    """From the environment."""
    settings = load_settings()
    s3 = s3_client(settings)
    redis = redis_client(settings)
    return Context(settings, redis, S3Store(s3, settings.state_bucket), ImageReader(s3, settings.image_buckets))
