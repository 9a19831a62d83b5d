"""One project's turn: read changes, freeze, decide what should run, queue it, publish what is live."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import structlog

from labelloop.catalogue import Catalogue
from labelloop.clock import now
from labelloop.errors import CorruptArtefactError, NotFoundError, StudioError
from labelloop.features import FeatureIndex
from labelloop.labels import parse_label_config
from labelloop.projects import ProjectRecord, ProjectStore, project_store
from labelloop.queue import SCORE, JobQueue, RedisLease, job_id
from labelloop.records import Task, canonical
from labelloop.registry import Registry
from labelloop.requests import RequestStore
from labelloop.runs import RunStore
from labelloop.scores import COLD_START, ScoreStore
from labelloop.snapshot import Latest, Snapshot, SnapshotStore
from labelloop.storage import ObjectStore
from labelloop.studio import Studio
from sync.feed import Changes, Feed
from sync.plan import Plan, Planner
from sync.pool import Listing, Pool
from sync.publish import Publisher

COUNT_EVERY_S = 5.0  # how soon a deleted task is noticed
RECONCILE_EVERY_S = 300.0  # the whole list of tasks, for what no cheap sign shows
LOOK_EVERY_S = 1.0  # pool, plan and publication where nothing nudged
TIDY_EVERY_S = 10.0
DELETED = "deleted.json"  # images whose tasks people removed
FIRST_ORDER = 500  # images with features that make a first order worth having, while the others are on their way

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Deps:
    """What every project's watch is built from."""

    studio: Studio
    store: ObjectStore
    projects: ProjectStore
    queue: JobQueue
    list_images: Callable[[str], Listing]  # image URI -> its listing


class ProjectWatch:
    """Everything the watcher knows of one project; built anew at every start."""

    def __init__(self, project: ProjectRecord, deps: Deps) -> None:
        store = project_store(deps.store, project.key)
        self.project, self._deps, self.schema = project, deps, project.schema
        self.snapshots = SnapshotStore(store)
        self.registry = Registry(store, RedisLease(deps.queue.redis, project.key))
        self.catalogue = Catalogue(store)
        self.index: FeatureIndex | None = None
        self._store = store
        self.publisher = Publisher(deps.studio, project, self.schema, ScoreStore(store))
        self.feed = Feed(deps.studio, project.id, self.schema, hidden=self.publisher.hidden)
        self.planner = Planner(project, RunStore(store), RequestStore(store), deps.queue, self.snapshots, self.registry)
        self.pool = Pool(project.key, deps.list_images(project.image_uri), self._import, deps.queue)
        self.snapshot: Snapshot | None = None
        self.plan: Plan | None = None
        self._latest: Latest | None = None
        self._due: dict[str, float] = {}
        self._changed_at = time.monotonic()

    def turn(self, *, nudged: bool) -> bool:
        """One round; True where annotations changed. Cheap where nothing did."""
        if self.snapshot is None:
            self._begin()
        changes = self._changes()
        if changes:
            self._changed_at = time.monotonic()
        if self.feed.dirty:  # also what an outage kept from being frozen in an earlier turn
            self._freeze()
        if changes or nudged or changes.new or self._is_due("look", LOOK_EVERY_S):
            self._look(new=bool(changes.new))
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
            "tasks": len(self.feed.stubs),
            "pool": asdict(self.pool.state) | {"importing": self.pool.importing},
            "problem": self.pool.problem,
            "latest": asdict(self._latest) if self._latest else None,
            "plan": self.plan.facts() if self.plan else None,
            "published": self.publisher.published.version if self.publisher.published else None,
            "at": now(),
        }

    def _begin(self) -> None:
        """Find everything as it was left: the newest snapshot, then what changed while nobody watched."""
        if self._deps.studio.project(self.project.id).created != self.project.created:
            raise StudioError(
                f"project {self.project.id} of Label Studio is another one than {self.project.key}: its database was "
                f"made anew. Take the old one out with `labelloop forget {self.project.key}`"
            )
        self._latest = self.snapshots.latest()
        self.feed.begin(self._last_tasks())
        self.feed.deleted = self._deleted()
        self.feed.reconcile()
        self._keep_deleted()
        self._freeze()
        live = self.registry.live()
        self.publisher.adopt(live.version if live else COLD_START, self.feed.task_of)
        log.info("watching", action="watch", project=self.project.key, tasks=len(self.feed.stubs))

    def _last_tasks(self) -> Mapping[int, Task]:
        """Those of the newest snapshot; Label Studio has them too, so a damaged one is made anew."""
        try:
            return self.snapshots.load(self._latest.snapshot).tasks if self._latest else {}
        except (CorruptArtefactError, NotFoundError) as error:
            log.warning("snapshot damaged, reading everything again", action="watch", reason=str(error))
            return {}

    def _changes(self) -> Changes:
        changes = self.feed.poll()
        counted = self._is_due("count", COUNT_EVERY_S) and self.feed.task_count_differs()
        if counted or self._is_due("reconcile", RECONCILE_EVERY_S):
            more = self.feed.reconcile()
            self._keep_deleted()
            return Changes(changes.tasks + more.tasks, changes.new + more.new, more.gone)
        return changes

    def _freeze(self) -> None:
        self.snapshot = self.snapshots.freeze(self.feed.tasks.values())
        before = self._latest
        if before and before.snapshot == self.snapshot.id:
            self.feed.dirty = False
            return
        count = sum(len(t.annotations) for t in self.snapshot.tasks.values())
        sequence = before.sequence + 1 if before else 1
        ref = Latest(self.snapshot.id, sequence, self.feed.cursor, now(), count)
        self.snapshots.set_latest(ref)
        self._latest, self.feed.dirty = ref, False
        log.info("frozen", action="freeze", snapshot=self.snapshot.id, annotations=count, sequence=sequence)

    def _deleted(self) -> set[str]:
        try:
            return set(json.loads(self._store.get(DELETED)))
        except NotFoundError:
            return set()

    def _keep_deleted(self) -> None:
        if self.feed.deleted != self._deleted():
            self._store.put(DELETED, canonical(sorted(self.feed.deleted)))

    def _look(self, *, new: bool) -> None:
        """Plan first: a person waits for the model, nobody for the rest."""
        assert self.snapshot is not None
        live = self.registry.live()
        version = self.registry.version(live.version) if live else None
        self.plan = self.planner.plan(self.snapshot, version, self.catalogue, self.index)
        backbone = self.registry.current_backbone()
        if backbone and (self.index is None or self.index.backbone != backbone.id):
            self.index = FeatureIndex(self._store, backbone.id)
        self.pool.turn([s.uri for s in self.feed.stubs.values() if s.uri], self.catalogue, self.index,
                       deleted=self.feed.deleted, now=new)  # fmt: skip
        self._publish(live.version if live else COLD_START)

    def _publish(self, version: str) -> None:
        open_tasks = self._open_tasks()
        featurised = len(self.index) if self.index else 0
        settled = self.pool.state.missing == 0 and not self.pool.importing
        ready = settled or featurised >= FIRST_ORDER
        if (
            ready
            and featurised
            and self.publisher.wants_order(
                version, featurised, open_tasks, settled=settled, snapshot=self.snapshot.id if self.snapshot else ""
            )
        ):
            self._order(version)
        self.publisher.publish(version, open_tasks)
        if self._is_due("tidy", TIDY_EVERY_S):
            self.planner.clean()
            self._follow_label_config()
            self.publisher.check_version()
            ours = {COLD_START, *(v.name for v in self.registry.versions())}
            self.publisher.retire(idle_s=time.monotonic() - self._changed_at, ours=ours)

    def _follow_label_config(self) -> None:
        """A class that was added in Label Studio counts from now on; labels that were not understood are read again."""
        config = self._deps.studio.project(self.project.id).label_config
        if config != self.project.label_config:
            parse_label_config(config)  # one that cannot be served is a visible problem, and the old one stays
            log.info("label config changed", action="label_config", project=self.project.key)
            self._deps.projects.put(replace(self.project, label_config=config))

    def _order(self, version: str) -> None:
        if not self._deps.queue.active(SCORE, self.project.key):
            name = job_id(SCORE, self.project.key, version)
            self._deps.queue.enqueue(SCORE, name, {"project": self.project.key, "version": version})

    def _open_tasks(self) -> dict[str, list[int]]:
        """Uri -> tasks that nobody has answered yet."""
        found: dict[str, list[int]] = {}
        for stub in self.feed.stubs.values():
            if stub.uri and not stub.annotations:
                found.setdefault(stub.uri, []).append(stub.id)
        return found

    def _import(self) -> None:
        if self.project.storage_id is not None:
            self._deps.studio.sync_storage(self.project.storage_id)

    def _is_due(self, what: str, every_s: float) -> bool:
        moment = time.monotonic()
        if moment - self._due.get(what, float("-inf")) < every_s:
            return False
        self._due[what] = moment
        return True
