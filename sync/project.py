"""One project's turn: read changes, freeze, decide what should run, queue it, publish what is live."""

from __future__ import annotations

import time
from collections.abc import Callable, Set
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import structlog

from labelloop.clock import now
from labelloop.errors import StudioError
from labelloop.images.mirror import Mirror
from labelloop.images.reader import short
from labelloop.objects.damage import UNREADABLE, Damage
from labelloop.objects.storage import ObjectStore
from labelloop.queue.jobs import SCORE, JobQueue, job_id
from labelloop.queue.leases import RedisLease
from labelloop.records.snapshots import Latest, Snapshot
from labelloop.records.versions import COLD_START, Version
from labelloop.rules.outdated import outdated
from labelloop.rules.schema import LabelRules
from labelloop.store.catalogue import Catalogue
from labelloop.store.features import FeatureIndex
from labelloop.store.projects import ProjectRecord, ProjectStore, project_store
from labelloop.store.registry import INITIAL, Registry
from labelloop.store.requests import RequestStore
from labelloop.store.runs import RunStore
from labelloop.store.scores import ScoreStore
from labelloop.store.snapshots import SnapshotStore
from labelloop.store.task_groups import PREFIX as TASK_GROUPS
from labelloop.studio.client import STORAGE_SYNC_S, Studio
from sync.answers.empties import Empties
from sync.answers.feed import Feed
from sync.answers.recorder import Recorder
from sync.answers.task_groups import TaskGroupKeeper
from sync.due import Due
from sync.guard import ReviewGuard
from sync.images.imports import import_new
from sync.images.listing import Listing
from sync.images.mirror import Fetch, Mirroring
from sync.images.pool import ImagePool
from sync.inspect import Inspection, Mender
from sync.label_config import LabelConfigFollower
from sync.plan import Planner, TurnPlan
from sync.predictions.publish import Publisher
from sync.studies import Studies
from sync.upkeep import Upkeep
from sync.weights import WeightsPublisher

LOOK_EVERY_S = 1.0  # pool, plan and publication where nothing nudged
TIDY_EVERY_S = 10.0
LABEL_CONFIG_EVERY_S = 2.0  # while people give a class that it lacks
UNREADABLE_TOLD = 1000  # tasks
DELETED_THERE = "deleted in Label Studio: `labelloop forget {}`"
NAMED = 5
MOST_TOLD = 50  # damaged objects in the heartbeat
FIRST_ORDER = 500  # images with features that make a first order worth having, while the others are on their way

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Deps:
    """What every project's watch is built from."""

    studio: Studio
    store: ObjectStore
    projects: ProjectStore
    queue: JobQueue
    list_images: Callable[[ProjectRecord], Listing]
    fetch: Fetch | None = None  # gets images that are not in S3; none: they are not copied
    patience: Callable[[float], None] = lambda _: None  # told before a request that may take so many seconds


class ProjectWatch:
    """Everything the watcher knows of one project; rebuilt at every start."""

    def __init__(self, project: ProjectRecord, deps: Deps) -> None:
        store = project_store(deps.store, project.key)
        self._key, self._id, self._created, self._deps = project.key, project.id, project.created, deps
        self.damage = damage = Damage()
        self.snapshots = SnapshotStore(store, damage)
        self.registry = Registry(store, RedisLease(deps.queue.redis, project.key), damage)
        self.catalogue = Catalogue(store, damage)
        self.index: FeatureIndex | None = None
        self._store = store
        schema = project.schema
        self.publisher = Publisher(deps.studio, project, schema, ScoreStore(store, damage))
        shown, is_outdated = self.publisher.seeing.of, partial(outdated, self.catalogue.images)
        self.feed = Feed(deps.studio, project.id, schema, shown=shown, outdated=is_outdated)
        self.task_groups = self.feed.task_groups = TaskGroupKeeper(project.config.buckets.fields, store)
        self.answers = Recorder(self.feed, self.snapshots, self.catalogue, store, damage)
        self.label_config = LabelConfigFollower(project, deps.studio, deps.projects, self.publisher)
        self.planner = Planner(
            project, RunStore(store, damage), RequestStore(store, damage), deps.queue, self.snapshots, self.registry
        )
        self.mirroring = Mirroring(Mirror(store, damage), deps.fetch)
        by_task = bool(project.config.buckets.fields)
        images = deps.list_images(project)
        self.pool = ImagePool(project.key, images, self._import, deps.queue, self.mirroring, by_task=by_task)
        self.upkeep = Upkeep(project, store, deps.queue)
        weights = WeightsPublisher(project.key, store, self.registry, deps.queue)
        menders: dict[str, Mender] = {
            INITIAL: lambda _: self.registry.repair_initial(), "snapshots/": self.snapshots.repair,
            "backbones/": weights.repair, TASK_GROUPS: self.task_groups.repair,
        }  # fmt: skip
        self.inspection = Inspection(store, damage, menders, weights)
        self.guard = ReviewGuard(LabelRules.of(project.config))
        self.studies = Studies(project, store, deps.queue, damage)
        self.empties = Empties(project, store, deps.studio)
        self.plan: TurnPlan | None = None
        self._due = Due()
        self._changed_at = time.monotonic()

    @property
    def project(self) -> ProjectRecord:
        """With the title of this moment."""
        return self.label_config.project

    @property
    def snapshot(self) -> Snapshot | None:
        """All answers as they were frozen last; None before the first turn."""
        return self.answers.snapshot

    def turn(self, *, nudged: bool) -> bool:
        """One round; True where annotations changed. Cheap where nothing did."""
        try:
            return self._turn(nudged=nudged)
        except StudioError as error:
            if error.status != 404 or not self._is_deleted():
                raise
            raise StudioError(DELETED_THERE.format(self._key), status=404) from error

    def rename(self, title: str) -> None:
        """The project is called so now; nothing that was read is read again."""
        self.label_config.project = replace(self.project, title=title)

    def drain(self) -> Latest:
        """Read until nothing moves, with a whole reconcile, and freeze: exactness is judged on the result."""
        if self.snapshot is None:
            self._begin()
        return self.answers.drain()

    def _turn(self, *, nudged: bool) -> bool:
        if self.snapshot is None:
            self._begin()
        changes = self.answers.changes(nudged=nudged)
        if changes:
            self._changed_at = time.monotonic()
        if self.feed.dirty:  # also what an outage kept from being frozen in an earlier turn
            self.answers.freeze()
        if changes or nudged or changes.new or self._due.now("look", LOOK_EVERY_S):
            self._look()
        self.studies.turn(nudged=nudged)
        return bool(changes)

    def _look(self) -> None:
        """Plan first: a person waits for the model, nobody for the rest."""
        live, version = self._champion()
        self._plan(version)
        self._open_index(version)
        self.task_groups.turn()  # first: workers decide on splits as soon as they know enough images
        self.pool.turn(self.feed.task_index, self.catalogue, self.index, deleted=self.feed.deleted)
        self.answers.set_aside(self.pool.overwritten)
        self._order(live)
        self.publisher.publish(live, self.feed.task_index.open, idle_s=self._idle_s())
        if self._due.now("tidy", TIDY_EVERY_S):
            self._tidy()
        assert self.snapshot is not None
        self.guard.turn(self.snapshot)
        self.empties.turn(self.snapshot)

    # --- steps

    def _begin(self) -> None:
        """Find everything as it was left."""
        if self._deps.studio.project(self._id).created != self._created:
            raise StudioError(
                f"project {self._id} of Label Studio is another one than {self._key}: its database "
                f"was recreated. Remove the old one with `labelloop forget {self._key}`"
            )
        self.answers.begin()
        live = self.registry.live()
        self.publisher.adopt(live.version if live else COLD_START, self.feed.task_index.open)
        log.info("watching", action="watch", project=self._key, tasks=len(self.feed.task_index))

    def _champion(self) -> tuple[str, Version | None]:
        live = self.registry.live()
        return (live.version, self.registry.version(live.version)) if live else (COLD_START, None)

    def _plan(self, version: Version | None) -> None:
        assert self.snapshot is not None
        self.plan = self.planner.plan(self.snapshot, version, self.catalogue, self.index)
        if self.plan.progress.undecided and self._due.now("label_config", LABEL_CONFIG_EVERY_S):
            self._follow_label_config()  # the class may just have been added

    def _open_index(self, version: Version | None) -> None:
        """Of the features that the champion rests on; before the first one, of the network the project begins with."""
        backbone = version.backbone if version else self._initial_backbone()
        if backbone and (self.index is None or self.index.backbone != backbone):
            self.index = FeatureIndex(self._store, backbone, self.damage)

    def _initial_backbone(self) -> str | None:
        try:
            initial = self.registry.initial_backbone()
        except UNREADABLE:  # noted; without it nothing can be featurised, and all else goes on
            return None
        return initial.id if initial else None

    def _order(self, version: str) -> None:
        """Have the pool ordered by this version, where that is worth it and nobody does it already."""
        open_tasks = self.feed.task_index.open
        featurised = (len(self.index) if self.index else 0) - self.pool.state.undecided
        settled = self.pool.settled
        scoring = self._deps.queue.active(SCORE, self._key)  # before the order is read: one that ends now counts
        ready = settled or featurised >= FIRST_ORDER
        snapshot = self.snapshot.id if self.snapshot else ""
        if (
            ready
            and featurised
            and not scoring
            and self.publisher.wants_order(version, featurised, open_tasks, settled=settled, snapshot=snapshot)
        ):
            name = job_id(SCORE, self._key, version)
            self._deps.queue.enqueue(SCORE, name, {"project": self._key, "version": version})

    def _tidy(self) -> None:
        """What nobody waits for."""
        self.answers.keep_latest()
        self.inspection.turn()
        self.upkeep.turn()
        self._follow_label_config()
        self.publisher.check_version()
        shown = (COLD_START, *(entry.version for entry in self.registry.deployments()))
        self.publisher.retire(shown, idle_s=self._idle_s())

    def _follow_label_config(self) -> None:
        self.label_config.look(labelled=bool(self.feed.tasks))

    def _idle_s(self) -> float:
        return time.monotonic() - self._changed_at

    def _is_deleted(self) -> bool:
        try:
            return self._deps.studio.project(self._id).created != self._created
        except StudioError as error:
            return error.status == 404

    def _import(self, new: Set[str]) -> bool:
        self._deps.patience(STORAGE_SYNC_S)
        return import_new(self._deps.studio, self.project, new)

    # --- what `labelloop status` shows

    def facts(self) -> dict[str, Any]:
        """Plain values for the heartbeat."""
        latest = self.answers.latest
        return {
            "title": self.project.title,
            "tasks": len(self.feed.task_index),
            "pool": self.pool.facts(),
            "copies": asdict(self.mirroring.state),
            "problem": self.label_config.problem or self.pool.problem,
            "latest": asdict(latest) if latest else None,
            "plan": self.plan.facts() if self.plan else None,
            "published": self.publisher.published.version if self.publisher.published else None,
            "order": self.publisher.order,
            "unread": self.guard.facts(),
            "empties": self.empties.facts(),
            "unreadable": [[number, why] for number, why in list(self.feed.unreadable.items())[:UNREADABLE_TOLD]],
            "without": self._without(),
            "damaged": [[d.key, d.reason] for d in self.damage.all()[:MOST_TOLD]],
            "at": now(),
        }

    def _without(self) -> dict[str, Any]:
        """Labelled images that nothing is learned from yet, and why."""
        lacking = self.plan.without if self.plan else ()
        tasks = [f"task {number} ({short(uri)}): {self._why_without(uri)}" for number, uri in lacking[:NAMED]]
        return {"count": len(lacking), "tasks": tasks}

    def _why_without(self, uri: str) -> str:
        if problem := self.mirroring.why(uri):
            return f"{problem}; fix the source or remove the task"
        if self.catalogue.lost and self.index is not None and uri in self.index and uri not in self.catalogue.images:
            return f"its part of the catalogue is damaged: restore {self.catalogue.lost[0]} from a backup"
        return "no worker has computed its features yet: check that one runs, and its log (action featurise)"
