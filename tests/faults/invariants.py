"""What must be true once the faults are over, without a person's help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from labelloop.errors import CorruptArtefactError, LabelloopError, NotFoundError
from labelloop.objects.formats import Kind, read
from labelloop.queue.heartbeat import alive
from labelloop.records.json import canonical, digest
from labelloop.records.runs import Run
from labelloop.records.tasks import Task
from labelloop.records.versions import COLD_START
from labelloop.store.features import FeatureStore
from labelloop.store.projects import ProjectRecord
from labelloop.store.registry import Registry
from labelloop.store.runs import RunStore
from labelloop.store.snapshots import SnapshotStore
from operations.deployment import Deployment
from tests.faults.world import World

Key = tuple[int, int, str]  # task, annotation, created_at: ids come back in SQLite
Answer = tuple[bool, str | None, str]  # skipped, class, updated_at


def answered_twice(deployment: Deployment, record: ProjectRecord) -> Iterator[str]:
    """Every wish with more than one verdict: of runs, of people's requests, of deployments, of orders."""
    store = deployment.within(record)
    done = [r for r in RunStore(store).all() if r.done]
    log = deployment.registry(record).deployments()
    yield from _more_than_one("verdict for", (r.wish for r in done))
    yield from _more_than_one("verdict for the request", (f"{r.kind} {a}" for r in done for a in r.answers))
    yield from _more_than_one("deployment for", (d.wish for d in log))
    yield from _more_than_one("run promoted", (r.version for r in done if r.outcome == "promote"))
    told = {r.wish: r.version for r in done if r.outcome == "promote"}
    for entry in log:
        if entry.wish and told.get(entry.wish) != entry.version:
            yield f"{entry.wish} deployed {entry.version}, its verdict says {told.get(entry.wish)}"
    orders = [read(Kind.SCORES, store.get(i.key)) for i in store.list("scores/")]
    yield from _more_than_one("order of", (f"{o['version']} on {o['snapshot']}, {o['pool']} images" for o in orders))


def _more_than_one(what: str, names: Iterable[str | None]) -> Iterator[str]:
    for name, times in Counter(n for n in names if n).items():
        if times > 1:
            yield f"{times} times a {what} {name}"


@dataclass(frozen=True)
class Judge:
    """Looks at one project from outside: Label Studio's own export, object storage, the backend's answers."""

    world: World
    record: ProjectRecord

    def settled(self) -> list[str]:
        """What is still on its way; empty at rest."""
        try:
            cheap = [*self._down(), *self._busy()] or [*self._not_shown()]
            return cheap or [*self._behind()]  # an export keeps Label Studio busy
        except (LabelloopError, httpx.HTTPError) as error:
            return [f"{type(error).__name__}: {error}"]

    def broken(self) -> list[str]:
        """What is wrong for good; empty where all invariants hold. Called at rest, after a drain."""
        return [*self._behind(), *self._runs_wrong(), *self._deployments_wrong(), *self._torn(), *self._serves_wrong()]

    # --- at rest

    def _down(self) -> Iterator[str]:
        for status in self.world.stack.statuses():
            if status.state != "ready":
                yield f"{status.name} is {status.state}"

    def _behind(self) -> Iterator[str]:
        """The frozen snapshot against Label Studio's own export, annotation by annotation."""
        wanted, kept = self.in_studio(), self.in_snapshot()
        lost = [k for k, v in wanted.items() if kept.get(k) != v]
        extra = [k for k in kept if k not in wanted]
        if lost:
            yield f"{len(lost)} annotations missing or different in the snapshot, e.g. {lost[0]}"
        if extra:
            yield f"{len(extra)} annotations only in the snapshot, e.g. {extra[0]}"

    def _busy(self) -> Iterator[str]:
        for job in self.world.direct.queue.jobs():
            if job.project == self.record.key and job.status in {"queued", "started"}:
                yield f"{job.id} is {job.status}"
        for run in self._runs():
            if run.outcome == "running":
                yield f"run {run.id} says it is running"
        facts = self._watcher()
        if facts.get("problem"):
            yield f"the watcher says: {facts['problem']}"
        pool, plan = facts.get("pool") or {}, facts.get("plan") or {}
        if pool.get("importing") or pool.get("images", 0) > pool.get("featurised", 0) + pool.get("unreadable", 0):
            yield f"images on their way: {pool}"
        if not plan or plan.get("actions") or plan.get("again_in_s") is not None:
            yield f"the plan is not at rest: {plan}"
        elif plan.get("waiting") and "two classes" not in plan["waiting"]:
            yield f"the plan waits: {plan['waiting']}"

    def _not_shown(self) -> Iterator[str]:
        version = self.live_version()
        project = self.world.direct.studio.project(self.record.id)
        if project.model_version != version:
            yield f"Label Studio orders by {project.model_version}, {version} is live"
        if (answered := self._answering()) != version:
            yield f"the backend answers with {answered}, {version} is live"

    def live_version(self) -> str:
        """By the deployment log."""
        live = self._registry().live()
        return live.version if live else COLD_START

    # --- for good

    def in_studio(self) -> dict[Key, Answer]:
        """Every annotation that Label Studio holds, skipped ones too."""
        settings = self.world.direct.settings
        answer = httpx.get(
            f"{settings.studio_url}/api/projects/{self.record.id}/export",
            params={"exportType": "JSON", "download_all_tasks": "true"}, timeout=60,
            headers={"Authorization": f"Token {settings.studio_token}"},
        )  # fmt: skip
        answer.raise_for_status()
        return {
            (row["id"], a["id"], a["created_at"]): (a["was_cancelled"], self._class_of(a), a["updated_at"])
            for row in answer.json()
            for a in row["annotations"]
        }

    def in_snapshot(self) -> dict[Key, Answer]:
        """Every annotation of the newest frozen snapshot."""
        return {
            (task.id, a.id, a.created_at): (a.cancelled, None if a.cancelled else a.label, a.updated_at)
            for task in self._tasks()
            for a in task.annotations
        }

    def _runs_wrong(self) -> Iterator[str]:
        """Each wish has one verdict at most, and what was promoted was deployed."""
        yield from answered_twice(self.world.direct, self.record)
        runs = self._runs()
        deployed = {d.version for d in self._registry().deployments()}
        promoted = Counter(
            (r.kind, r.snapshot, r.config) for r in runs if r.outcome == "promote" and r.kind == "refresh"
        )
        for (kind, snapshot, _), times in promoted.items():
            if times > 1:
                yield f"{kind} of snapshot {snapshot} was promoted {times} times"
        for run in runs:
            if run.outcome == "promote" and run.version not in deployed:
                yield f"{run.id} promoted {run.version}, which was never deployed"
            if run.outcome == "running":
                yield f"{run.id} never ended"

    def _deployments_wrong(self) -> Iterator[str]:
        log = self._registry().deployments()
        if [d.number for d in log] != list(range(1, len(log) + 1)):
            yield f"the deployment log has gaps: {[d.number for d in log]}"
        for before, after in pairwise(log):
            if after.previous != before.version:
                yield f"deployment {after.number} replaced {after.previous}, but {before.version} was live"

    def _torn(self) -> Iterator[str]:
        """Every reference has its object, every object the recorded hash."""
        registry = self._registry()
        for version in registry.versions():
            try:
                registry.head(version)
                self._snapshots().load(version.snapshot)
                registry.backbone_weights(registry.backbone(version.backbone))
            except (CorruptArtefactError, NotFoundError) as error:
                yield f"{version.name} is torn: {error}"
        for info in self._store.list("features/"):
            if "/index/" in info.key and not self._store.exists(
                info.key.replace("/index/", "/rows/")[:-4] + "safetensors"
            ):
                yield f"{info.key} names rows that are not there"
        for half in Path(self.world.home).glob("cache/**/*"):
            if half.is_file() and half.suffix.lstrip(".").isdigit():
                yield f"half-written file {half}"

    def _serves_wrong(self) -> Iterator[str]:
        """/predict gives what the live version's head makes of the kept features."""
        version = self.live_version()
        if version == COLD_START:
            return
        registry = self._registry()
        found = registry.version(version)
        features = FeatureStore(self._store, found.backbone, self.world.home / "judge" / self.record.key)
        features.update()
        uris = sorted(features.index.places)[:40]
        rows = registry.head(found).probabilities(features.rows(uris))
        expected = [found.labels[int(i)] for i in np.argmax(rows, axis=1)]
        for uri, label, result in zip(uris, expected, self._predict(uris), strict=True):
            said = self.record.schema.read(result["result"])[0]
            if result["model_version"] != version:
                yield f"{uri} was answered by {result['model_version']}, {version} is live"
            if result["result"] and said != label:
                yield f"{uri} is {said} to the backend and {label} to {version}"

    # --- reading

    def _predict(self, uris: list[str]) -> list[dict[str, Any]]:
        tasks = [{"id": i, "data": {self.record.schema.data_key: uri}} for i, uri in enumerate(uris)]
        body = {"tasks": tasks, "project": self.record.reference, "label_config": self.record.label_config}
        answer = httpx.post(f"{self._backend}/predict", json=body, auth=self._auth, timeout=60)
        answer.raise_for_status()
        results: list[dict[str, Any]] = answer.json()["results"]
        return results

    def _answering(self) -> str | None:
        body = {"project": self.record.reference, "schema": self.record.label_config, "hostname": "faults"}
        answer = httpx.post(f"{self._backend}/setup", json=body, auth=self._auth, timeout=5)
        version: str | None = answer.json().get("model_version")
        return version

    def _watcher(self) -> dict[str, Any]:
        for name, facts in alive(self.world.direct.queue.redis).items():
            if name.startswith("sync:") and facts.get("leads"):
                return (facts.get("projects") or {}).get(self.record.key) or {"problem": "not looked after yet"}
        return {"problem": "no watcher leads"}

    def _class_of(self, annotation: dict[str, Any]) -> str | None:
        return None if annotation["was_cancelled"] else self.record.schema.read(annotation["result"])[0]

    def _tasks(self) -> list[Task]:
        store = self._snapshots()
        latest = store.latest()
        return list(store.load(latest.snapshot).tasks.values()) if latest else []

    def _runs(self) -> list[Run]:
        return RunStore(self._store).all()

    def _registry(self) -> Registry:
        return self.world.direct.registry(self.record)

    def _snapshots(self) -> SnapshotStore:
        return SnapshotStore(self._store)

    @property
    def _store(self) -> Any:
        return self.world.direct.within(self.record)

    @property
    def _backend(self) -> str:
        return self.world.direct.settings.backend_url

    @property
    def _auth(self) -> tuple[str, str]:
        settings = self.world.direct.settings
        return settings.backend_user, settings.backend_password or ""


def fingerprint(answers: dict[Key, Answer]) -> str:
    """One word for a whole set of annotations, for the report."""
    return digest(canonical(sorted([list(k), list(v)] for k, v in answers.items())))[:12]
