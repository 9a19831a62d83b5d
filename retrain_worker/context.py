"""What a worker process keeps between jobs: connections, stores, features, the loaded backbone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from redis import Redis

from labelloop.config.networks import AUTO
from labelloop.config.settings import Settings, load_settings
from labelloop.errors import CorruptObjectError, NotFoundError, SettingsError
from labelloop.images.mirror import Mirror, MirroredReader
from labelloop.images.reader import ImageReader, Reader
from labelloop.images.thumbs import Thumbs
from labelloop.likeness.near import NearIndex
from labelloop.likeness.relatives import Relatives
from labelloop.likeness.windows import WindowIndex
from labelloop.objects import cache
from labelloop.objects.damage import UNREADABLE, Damaged
from labelloop.objects.s3_client import s3_client
from labelloop.objects.storage import ObjectStore, S3Store
from labelloop.queue.connection import redis_client
from labelloop.queue.jobs import FEATURISE, JobQueue, job_id
from labelloop.queue.leases import RedisLease
from labelloop.records.json import canonical, digest
from labelloop.records.snapshots import Snapshot, as_of
from labelloop.records.versions import BackboneRecord
from labelloop.rules.schema import LabelRules
from labelloop.store.catalogue import Catalogue
from labelloop.store.features import FeatureStore
from labelloop.store.projects import ProjectRecord, ProjectStore, project_store
from labelloop.store.registry import Registry
from labelloop.store.runs import RunStore
from labelloop.store.scores import ScoreStore
from labelloop.store.snapshots import SnapshotStore
from labelloop.store.task_groups import TaskGroups

if TYPE_CHECKING:
    from labelloop.model.net import Backbone


CHUNK = 64  # images per job that computes lost features again
log = structlog.get_logger()
OPEN_FEATURES = 3  # backbones whose features a project keeps at hand: the champion's, an older one's, a new one's


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
    recompute: Callable[[Collection[str]], None] = lambda _uris: None  # told of images whose features were lost
    near: NearIndex = field(default_factory=NearIndex)  # of images that older releases placed, see `look_again`
    windows: WindowIndex = field(default_factory=WindowIndex)  # of all others
    _features: dict[str, FeatureStore] = field(default_factory=dict)
    _looked_at: int = 0

    @property
    def rules(self) -> LabelRules:
        """What each class counts as, by the config of now."""
        return LabelRules.of(self.record.config)

    @cached_property
    def thumbs(self) -> Thumbs:
        """Small pictures to compare, read again where they are not at hand."""
        return Thumbs(self.images, self.catalogue.images)

    @cached_property
    def task_groups(self) -> TaskGroups:
        """What tasks say of their images' groups."""
        return TaskGroups(self.store)

    def relatives(self) -> Relatives:
        """Who looks at pairs of its images."""
        return Relatives(self.windows, self.thumbs.of, self.near)

    def look_again(self) -> None:
        """Take what the catalogue has learned since into the indexes of what looks alike."""
        images = self.catalogue.images  # what is new stands last
        new = list(islice(images.values(), self._looked_at, None))
        self.windows.add((f.uri, f.middle) for f in new)
        self.near.add((f.phash, f.uri) for f in new if not f.middle)
        self._looked_at += len(new)

    def snapshot(self, name: str) -> Snapshot:
        """A snapshot with classes as they count now, whenever it was frozen."""
        return self.rules.read(self.snapshots.load(name))

    def older(self, name: str, moment: str, newest: str, *, changed: bool = True) -> Snapshot:
        """An older snapshot as people gave it; where it cannot be read, what it held by the newest (see `as_of`)."""
        try:
            return self.snapshots.load(name)
        except (*UNREADABLE, NotFoundError) as error:
            log.warning("snapshot damaged, taken from the newest", action="snapshot", snapshot=name, reason=str(error))
            return as_of(self.snapshots.load(newest), moment, changed=changed)

    def features(self, backbone: str) -> FeatureStore:
        """The kept features under one backbone, up to date."""
        features = self._features.pop(backbone, None)
        if features is None:
            features = FeatureStore(self.store, backbone, self.cache, on_lost=self.recompute)
            cache.bound(self.cache.parent, self.cache_max_bytes)  # one more is about to come
        self._features[backbone] = features  # the one used last comes last
        if len(self._features) > OPEN_FEATURES:
            del self._features[next(iter(self._features))]
        cache.mark_used(cache.folder(self.cache, backbone))
        features.update()
        return features

    def lost_rows(self) -> list[Damaged]:
        """Of the features that are at hand."""
        return [row for store in self._features.values() for row in store.lost()]

    def feature_backbones(self) -> set[str]:
        """Backbones under which any features are kept."""
        return {info.key.split("/")[1] for info in self.store.list("features/")}

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
        from labelloop.model import net  # torch: seconds to import, and not every job needs it

        if self._backbone is None or self._backbone[0] != record.id:
            loaded = net.load(record, self.weights(project, record), device=net.best_device())
            net.verify(loaded)
            self._backbone = (record.id, loaded)
        return self._backbone[1]

    def lost_rows(self) -> dict[str, list[tuple[str, str]]]:
        """Project -> (key, reason) of rows of features that this process could not read, for its heartbeat."""
        lost = {key: [(d.key, d.reason) for d in project.lost_rows()] for key, project in self._contexts.items()}
        return {key: rows for key, rows in lost.items() if rows}

    def weights(self, project: ProjectContext, record: BackboneRecord) -> bytes:
        """Of a kept network. Damaged or lost ones are built again, where the network was not fine-tuned."""
        try:
            return project.registry.backbone_weights(record)
        except (CorruptObjectError, NotFoundError):
            again = self._built_again(project, record)
            if again is None:
                raise
        project.registry.put_weights(record, again)
        log.info("written again", action="heal", key=f"backbones/{record.id}", project=project.record.key)
        return again

    def _built_again(self, project: ProjectContext, record: BackboneRecord) -> bytes | None:
        """None where the same bytes do not come out: it learned since, or begins from other weights by now."""
        from labelloop.model import net

        spec = project.record.config.backbone
        if record.snapshot or not net.follows(record, spec):
            return None
        try:
            if spec.name == AUTO:  # what was chosen once, whatever would be chosen today
                spec = spec.model_copy(update={"name": record.name})
            built = net.build(spec, self.settings.weights_dirs, offline=self.settings.offline)
        except SettingsError as error:
            log.warning("cannot be built again", action="heal", key=f"backbones/{record.id}", reason=str(error))
            return None
        return net.dump(built) if built.record.weights_sha256 == record.weights_sha256 else None

    def _build(self, record: ProjectRecord) -> ProjectContext:
        store = project_store(self._store, record.key)
        return ProjectContext(
            record=record, store=store, registry=Registry(store, RedisLease(self.redis, record.key)),
            snapshots=SnapshotStore(store), catalogue=Catalogue(store), runs=RunStore(store),
            scores=ScoreStore(store), cache=self.settings.cache_dir / record.key,
            images=MirroredReader(self.images, Mirror(store)),
            cache_max_bytes=self.settings.cache_max_bytes,
            recompute=lambda uris: self._recompute(record.key, uris),
        )  # fmt: skip

    def _recompute(self, project: str, uris: Collection[str]) -> None:
        queue, ordered = JobQueue(self.redis), sorted(uris)
        for start in range(0, len(ordered), CHUNK):
            chunk = ordered[start : start + CHUNK]
            name = job_id(FEATURISE, project, digest(canonical(chunk))[:12])
            queue.enqueue(FEATURISE, name, {"project": project, "uris": chunk})


def make_context() -> Context:
    """From the environment."""
    settings = load_settings()
    s3 = s3_client(settings)
    redis = redis_client(settings)
    return Context(settings, redis, S3Store(s3, settings.state_bucket), ImageReader(s3, settings.image_buckets))
