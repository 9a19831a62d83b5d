"""One project's turn: read changes, freeze, decide what should run, queue it, publish what is live."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import structlog

from labelloop.clock import now
from labelloop.errors import LabelConfigError, NotFoundError, StudioError
from labelloop.images.mirror import Mirror
from labelloop.images.reader import short
from labelloop.labels.results import parse_label_config
from labelloop.objects.damage import UNREADABLE, Damage
from labelloop.objects.storage import ObjectStore
from labelloop.queue.jobs import SCORE, JobQueue, job_id
from labelloop.queue.leases import RedisLease
from labelloop.records.snapshots import Latest, Snapshot
from labelloop.records.tasks import Task
from labelloop.records.versions import COLD_START
from labelloop.rules.migration import changed
from labelloop.rules.outdated import outdated
from labelloop.rules.schema import LabelRules
from labelloop.store.catalogue import Catalogue
from labelloop.store.deleted import KEY as DELETED
from labelloop.store.deleted import keep_deleted, read_deleted
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
from sync.answers.feed import Changes, Feed
from sync.answers.task_groups import TaskGroupKeeper
from sync.guard import Guard
from sync.images.imports import import_new
from sync.images.listing import Listing
from sync.images.mirror import Fetch, Mirroring
from sync.images.pool import Pool
from sync.inspect import Inspection, Mender
from sync.pace import Pace
from sync.plan import Plan, Planner
from sync.predictions.publish import Publisher
from sync.studies import Studies
from sync.upkeep import Upkeep
from sync.weights import Weights

COUNT_EVERY_S = 5.0  # how soon a deleted task is noticed
COUNT_SHARE = 0.02  # of Label Studio's time that counting may take
SWEEP_EVERY_S = 300.0  # the whole list of tasks, for what no cheap sign shows
SWEEP_SHARE = 0.01  # of Label Studio's time that this may take: seldom where there are many tasks
PAGE_EVERY_S = 10.0  # a page of it at least this often, although people work
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
    """Everything the watcher knows of one project; built anew at every start."""

    def __init__(self, project: ProjectRecord, deps: Deps) -> None:
        store = project_store(deps.store, project.key)
        self.project, self._deps, self.schema = project, deps, project.schema
        self.damage = damage = Damage()
        self.snapshots = SnapshotStore(store, damage)
        self.registry = Registry(store, RedisLease(deps.queue.redis, project.key), damage)
        self.catalogue = Catalogue(store, damage)
        self.index: FeatureIndex | None = None
        self._store = store
        self.publisher = Publisher(deps.studio, project, self.schema, ScoreStore(store, damage))
        self.task_groups = TaskGroupKeeper(project.config.buckets.fields, store)
        self.feed = Feed(
            deps.studio, project.id, self.schema, shown=self.publisher.seeing.of,
            outdated=partial(outdated, self.catalogue.images),
        )  # fmt: skip
        self.feed.task_groups = self.task_groups
        self.planner = Planner(
            project, RunStore(store, damage), RequestStore(store, damage), deps.queue, self.snapshots, self.registry
        )
        self.mirroring = Mirroring(Mirror(store, damage), deps.fetch)
        self.pool = Pool(project.key, deps.list_images(project), self._import, deps.queue, self.mirroring,
                         by_task=bool(project.config.buckets.fields))  # fmt: skip
        self.upkeep = Upkeep(project, store, deps.queue)
        weights = Weights(project.key, store, self.registry, deps.queue)
        menders: dict[str, Mender] = {
            INITIAL: lambda _: self.registry.mend_initial(), "snapshots/": self.snapshots.mend,
            "backbones/": weights.mend, TASK_GROUPS: self.task_groups.mend,
        }  # fmt: skip
        self.inspection = Inspection(store, damage, menders, weights)
        self.guard = Guard(LabelRules.of(project.config))
        self.studies = Studies(project, store, deps.queue, damage)
        self.empties = Empties(project, store, deps.studio)
        self.snapshot: Snapshot | None = None
        self.plan: Plan | None = None
        self._config_problem: str | None = None
        self._latest: Latest | None = None
        self._deleted_kept: set[str] = set()
        self._sweep_at = self._count_at = 0.0
        self._sweep_pace, self._count_pace = Pace(SWEEP_EVERY_S, SWEEP_SHARE), Pace(COUNT_EVERY_S, COUNT_SHARE)
        self._unseen = 0  # how many tasks more than we know Label Studio had, as a negative number
        self._due: dict[str, float] = {}
        self._changed_at = time.monotonic()

    def turn(self, *, nudged: bool) -> bool:
        """One round; True where annotations changed. Cheap where nothing did."""
        try:
            return self._turn(nudged=nudged)
        except StudioError as error:
            if error.status != 404 or not self._is_deleted():
                raise
            raise StudioError(DELETED_THERE.format(self.project.key), status=404) from error

    def rename(self, title: str) -> None:
        """The project is called so now; nothing that was read is read again."""
        self.project = replace(self.project, title=title)

    def _turn(self, *, nudged: bool) -> bool:
        if self.snapshot is None:
            self._begin()
        changes = self._changes(nudged=nudged)
        if changes:
            self._changed_at = time.monotonic()
        if self.feed.dirty:  # also what an outage kept from being frozen in an earlier turn
            self._freeze()
        if changes or nudged or changes.new or self._is_due("look", LOOK_EVERY_S):
            self._look()
        self.studies.turn(nudged=nudged)
        return bool(changes)

    def drain(self) -> Latest:
        """Read until nothing moves, with a whole reconcile, and freeze: exactness is judged on the result."""
        if self.snapshot is None:
            self._begin()
        self.feed.reconcile()
        self._keep_deleted()
        while self.feed.poll():
            time.sleep(0.05)
        self._freeze()
        assert self._latest is not None
        return self._latest

    def facts(self) -> dict[str, Any]:
        """What `labelloop status` shows of this project."""
        return {
            "title": self.project.title,
            "tasks": len(self.feed.board),
            "pool": self.pool.facts(),
            "copies": asdict(self.mirroring.state),
            "problem": self._config_problem or self.pool.problem,
            "latest": asdict(self._latest) if self._latest else None,
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
        """Labelled images of which nothing is learned yet, and why."""
        lacking = self.plan.without if self.plan else ()
        named = [f"task {number} ({short(uri)}): {self._why_without(uri)}" for number, uri in lacking[:NAMED]]
        return {"count": len(lacking), "tasks": named}

    def _why_without(self, uri: str) -> str:
        if problem := self.mirroring.why(uri):
            return f"{problem}; fix the source or remove the task"
        if self.catalogue.lost and self.index is not None and uri in self.index and uri not in self.catalogue.images:
            return f"its part of the catalogue is damaged: restore {self.catalogue.lost[0]} from a backup"
        return "no worker has computed its features yet: check that one runs, and its log (action featurise)"

    def _begin(self) -> None:
        """Find everything as it was left: the newest snapshot, then what changed while nobody watched."""
        if self._deps.studio.project(self.project.id).created != self.project.created:
            raise StudioError(
                f"project {self.project.id} of Label Studio is another one than {self.project.key}: its database "
                f"was recreated. Remove the old one with `labelloop forget {self.project.key}`"
            )
        self._latest = self._last_latest()
        self.feed.begin(self._last_tasks())
        self.feed.deleted = self._deleted()
        self._deleted_kept = set(self.feed.deleted)
        self.catalogue.update()  # before answers are read: which images were overwritten?
        began = time.monotonic()
        self.feed.reconcile()
        self.feed.look_again(uri for uri, facts in self.catalogue.images.items() if facts.earlier)
        self._plan_sweep(time.monotonic() - began)
        self._keep_deleted()
        self._freeze()
        live = self.registry.live()
        self.publisher.adopt(live.version if live else COLD_START, self.feed.board.open)
        log.info("watching", action="watch", project=self.project.key, tasks=len(self.feed.board))

    def _is_deleted(self) -> bool:
        try:
            return self._deps.studio.project(self.project.id).created != self.project.created
        except StudioError as error:
            return error.status == 404

    def _last_tasks(self) -> Mapping[int, Task]:
        """Those of the newest snapshot; Label Studio has them too, so a damaged one is made anew."""
        try:
            return self.snapshots.load(self._latest.snapshot).tasks if self._latest else {}
        except (*UNREADABLE, NotFoundError) as error:
            log.warning("snapshot damaged, reading everything again", action="watch", reason=str(error))
            return {}

    def _last_latest(self) -> Latest | None:
        """None where it cannot be read: Label Studio has all that it says, and the next freeze writes it again."""
        try:
            return self.snapshots.latest()
        except UNREADABLE:
            return None

    def _changes(self, *, nudged: bool) -> Changes:
        changes = self.feed.poll() + self._recount()
        quiet = not (changes or nudged)
        due = self.feed.sweeping or time.monotonic() > self._sweep_at
        if due and (quiet or self._is_due("page", PAGE_EVERY_S)):
            changes += self._sweep()
        self._keep_deleted()
        return changes

    def _recount(self) -> Changes:
        """Deleted tasks are found by their number; tasks that are not seen although they are there, by a sweep."""
        if time.monotonic() < self._count_at or self.feed.sweeping:
            return Changes()
        began = time.monotonic()
        surplus = self.feed.surplus()
        self._count_at = time.monotonic() + self._count_pace.rest_s(time.monotonic() - began)
        if surplus > 0:
            return self._find_deleted(surplus)
        changes = self.feed.poll() if surplus else Changes()
        if surplus and not changes.new and self._unseen != surplus:  # they do not merely arrive; once for each number
            self._sweep_at = 0.0
        self._unseen = surplus
        return changes

    def _find_deleted(self, surplus: int) -> Changes:
        found = self.feed.find_deleted(surplus)
        if found is None:
            self._sweep_at = 0.0
        return found or Changes()

    def _sweep(self) -> Changes:
        """One more page of the whole list."""
        changes, done = self.feed.sweep()
        self._due["page"] = time.monotonic()
        if done:
            self._plan_sweep(self.feed.sweep_took_s)
        return changes

    def _plan_sweep(self, took_s: float) -> None:
        self._sweep_at = time.monotonic() + self._sweep_pace.rest_s(took_s)

    def _freeze(self) -> None:
        began = time.monotonic()
        self.snapshot = self.snapshots.advance(self.feed.tasks, self.feed.moved)
        before = self._latest
        if before and before.snapshot == self.snapshot.id:
            self.feed.frozen()
            return
        count = self.feed.annotations
        sequence = before.sequence + 1 if before else 1
        ref = Latest(self.snapshot.id, sequence, self.feed.cursor, now(), count)
        self.snapshots.set_latest(ref)
        self._latest = ref
        self.feed.frozen()
        log.info("frozen", action="freeze", snapshot=self.snapshot.id, annotations=count, sequence=sequence,
                 seconds=round(time.monotonic() - began, 3))  # fmt: skip

    def _keep_latest(self) -> None:
        """A watcher that lost its lease in the middle of a write may have put an older snapshot back."""
        if self._latest and self._last_latest() != self._latest:
            log.warning("set the newest snapshot again", action="keep_latest", snapshot=self._latest.snapshot)
            self.snapshots.set_latest(self._latest)

    def _deleted(self) -> set[str]:
        """Where neither object nor copy can be read: every image that was looked at and has no task."""
        try:
            return read_deleted(self._store, self.damage)
        except UNREADABLE:
            self.catalogue.update()
            return set(self.catalogue.images)

    def _keep_deleted(self) -> None:
        if self.feed.deleted != self._deleted_kept or self.damage.keys(DELETED):
            keep_deleted(self._store, self.feed.deleted)
            self._deleted_kept = set(self.feed.deleted)
            self.damage.mended(DELETED)

    def _look(self) -> None:
        """Plan first: a person waits for the model, nobody for the rest."""
        assert self.snapshot is not None
        live = self.registry.live()
        version = self.registry.version(live.version) if live else None
        self.plan = self.planner.plan(self.snapshot, version, self.catalogue, self.index)
        if self.plan.progress.undecided and self._is_due("label_config", LABEL_CONFIG_EVERY_S):
            self._follow_label_config()  # the class may just have been added
        backbone = version.backbone if version else self._initial_backbone()
        if backbone and (self.index is None or self.index.backbone != backbone):
            self.index = FeatureIndex(self._store, backbone, self.damage)
        self.task_groups.turn()  # first: workers decide on buckets as soon as they know enough images
        self.pool.turn(self.feed.board, self.catalogue, self.index, deleted=self.feed.deleted)
        self._set_aside()
        self._publish(live.version if live else COLD_START)
        self.guard.turn(self.snapshot)
        self.empties.turn(self.snapshot)

    def _set_aside(self) -> None:
        """Answers that were given to other bytes than stand there now, and those that count again."""
        self.feed.look_again(self.pool.overwritten)
        self.pool.overwritten.clear()
        if self.feed.dirty:
            self._freeze()

    def _initial_backbone(self) -> str | None:
        try:
            initial = self.registry.initial_backbone()
        except UNREADABLE:  # noted; without it nothing can be featurised, and all else goes on
            return None
        return initial.id if initial else None

    def _publish(self, version: str) -> None:
        open_tasks = self.feed.board.open
        featurised = (len(self.index) if self.index else 0) - self.pool.state.undecided
        settled = self.pool.settled
        scoring = self._deps.queue.active(SCORE, self.project.key)  # before the order is read: one that ends now counts
        ready = settled or featurised >= FIRST_ORDER
        if (
            ready
            and featurised
            and not scoring
            and self.publisher.wants_order(
                version, featurised, open_tasks, settled=settled, snapshot=self.snapshot.id if self.snapshot else ""
            )
        ):
            self._order(version)
        idle_s = time.monotonic() - self._changed_at
        self.publisher.publish(version, open_tasks, idle_s=idle_s)
        if self._is_due("tidy", TIDY_EVERY_S):
            self._keep_latest()
            self.inspection.turn()
            self.upkeep.turn()
            self._follow_label_config()
            self.publisher.check_version()
            shown = (COLD_START, *(entry.version for entry in self.registry.deployments()))
            self.publisher.retire(shown, idle_s=idle_s)

    def _follow_label_config(self) -> None:
        """Serve the classes that Label Studio has now. What becomes of labels of a lost class, people decide.

        A config that cannot be served is a visible problem, and the old one stays.
        """
        found = self._deps.studio.project(self.project.id)
        config = found.label_config
        self._follow_title(found.title)
        self._config_problem = None
        if config == self.project.label_config:
            return
        try:
            schema = parse_label_config(config)
        except LabelConfigError as error:
            self._config_problem = (
                f"the label config was changed and cannot be served: {error}. Until it is corrected, labels count and "
                "models learn by the one before"
            )
            return
        change = changed(self.schema, schema, labelled=bool(self.feed.tasks))
        if change.hidden:
            self._config_problem = f"the label config is not followed: {change.hidden}"
            return
        log.info("label config changed", action="label_config", project=self.project.key,
                 added=list(change.added), removed=list(change.removed))  # fmt: skip
        if change.removed:
            self.publisher.withdraw(schema)
        newest = self._deps.projects.get(self.project.key)  # its config may have been changed a moment ago
        self._deps.projects.put(replace(newest, label_config=config))

    def _follow_title(self, title: str) -> None:
        """People call the project by the name that Label Studio shows."""
        if title != self.project.title:
            log.info("project renamed", action="rename", project=self.project.key, title=title)
            self.rename(title)
            with suppress(NotFoundError):  # just forgotten
                self._deps.projects.put(replace(self._deps.projects.get(self.project.key), title=title))

    def _order(self, version: str) -> None:
        name = job_id(SCORE, self.project.key, version)
        self._deps.queue.enqueue(SCORE, name, {"project": self.project.key, "version": version})

    def _import(self, new: Set[str]) -> bool:
        self._deps.patience(STORAGE_SYNC_S)
        return import_new(self._deps.studio, self.project, new)

    def _is_due(self, what: str, every_s: float) -> bool:
        moment = time.monotonic()
        if moment - self._due.get(what, float("-inf")) < every_s:
            return False
        self._due[what] = moment
        return True
