"""Snapshot, run records and policy in; queued jobs out. Everything is derived, nothing is remembered."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import structlog

from labelloop.catalogue import Catalogue
from labelloop.clock import age_s
from labelloop.errors import NotFoundError
from labelloop.features import FeatureIndex
from labelloop.projects import ProjectRecord
from labelloop.queue import KINDS, REFRESH, RETRAIN, JobQueue, job_id
from labelloop.records import Bucket
from labelloop.registry import Registry, Version
from labelloop.requests import Request, RequestStore
from labelloop.runs import Run, RunStore
from labelloop.snapshot import Snapshot, SnapshotStore
from labelloop.trigger import Decision, Progress, decide

ORPHANED_S = 15.0  # a record that says "running" without a job for so long: its worker died

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Plan:
    """What was decided in this turn, and what it was decided from."""

    progress: Progress
    decision: Decision
    running: tuple[str, ...]  # kinds that wait or run already

    def facts(self) -> dict[str, Any]:
        """For `labelloop status`."""
        return {**asdict(self.decision), "running": list(self.running), "changes": self.progress.changes,
                "labels": dict(self.progress.labels)}  # fmt: skip


class Planner:
    """Decides for one project and queues what is wanted and not under way."""

    def __init__(
        self, project: ProjectRecord, runs: RunStore, requests: RequestStore, queue: JobQueue,
        snapshots: SnapshotStore, registry: Registry,
    ) -> None:  # fmt: skip
        self._project, self._runs, self._requests, self._queue = project, runs, requests, queue
        self._snapshots, self._registry = snapshots, registry
        self._labels: dict[str, dict[str, str]] = {}  # snapshot -> its labels; the few that comparisons need

    def plan(self, snapshot: Snapshot, live: Version | None, catalogue: Catalogue, index: FeatureIndex | None) -> Plan:
        """Decide, then queue."""
        runs = [r for r in self._runs.all() if r.config == self._project.config.hash]
        asked = self._asked(runs)
        progress = self._progress(snapshot, live, catalogue, index, runs, asked=bool(asked))
        decision = decide(progress, self._project.config)
        under_way = [k for k in (REFRESH, RETRAIN) if self._queue.active(k, self._project.key)]
        for action in decision.actions:
            kind = KINDS[action.kind]
            if kind not in under_way:
                self._enqueue(action.kind, action.why, snapshot, runs)
                under_way.append(kind)
        return Plan(progress, decision, tuple(k.name for k in under_way))

    def clean(self) -> None:
        """End the records of runs whose worker died, so that they count as failed and are tried again."""
        for run in self._runs.all():
            kind = KINDS.get(run.kind)
            if run.outcome != "running" or kind is None or age_s(run.started_at) < ORPHANED_S:
                continue
            if not self._queue.active(kind, self._project.key):
                self._runs.end(run, "failed", ("its worker died before the run ended",))
                log.warning("run ended by a dead worker", action="clean", run=run.id)

    def _enqueue(self, kind: str, why: str, snapshot: Snapshot, runs: list[Run]) -> None:
        attempt = 1 + sum(r.kind == kind and r.snapshot == snapshot.id for r in runs)
        name = job_id(KINDS[kind], self._project.key, snapshot.id[:12], self._project.config.hash, attempt)
        payload = {"project": self._project.key, "snapshot": snapshot.id, "attempt": attempt}
        if self._queue.enqueue(KINDS[kind], name, payload):
            log.info("queued", action="queue", kind=kind, why=why, snapshot=snapshot.id, attempt=attempt)

    def _asked(self, runs: list[Run]) -> list[Request]:
        """Open wishes for a retrain; those that a run has answered since are struck off."""
        wishes = [r for r in self._requests.open() if r.what == RETRAIN.name]
        open_wishes = []
        for wish in wishes:
            if any(r.kind == RETRAIN.name and r.done and r.started_at >= wish.at for r in runs):
                self._requests.done(wish)
            else:
                open_wishes.append(wish)
        return open_wishes

    def _progress(
        self, snapshot: Snapshot, live: Version | None, catalogue: Catalogue, index: FeatureIndex | None,
        runs: list[Run], *, asked: bool,
    ) -> Progress:  # fmt: skip
        labels = {uri: label for uri, label in snapshot.labels().items() if uri}  # a task may have no image
        facts = {u: catalogue.images.get(u) for u in labels}
        readable = {u for u, f in facts.items() if f is None or not f.problem}
        train = {u: labels[u] for u, f in facts.items() if f and not f.problem and f.bucket is Bucket.TRAIN}
        missing = sum(1 for u in readable if index is None or u not in index)
        judged = [r for r in runs if r.kind == REFRESH.name and r.done]
        saw = self._backbone_saw(live)
        started = [r.started_at for r in runs if r.kind == REFRESH.name]
        counts = Counter(train.values())
        return Progress(
            labels={c: counts[c] for c in self._project.schema.classes},
            changes=_changes(labels, self._labels_of(judged[-1].snapshot) if judged else {}),
            new_for_backbone=sum(1 for u, label in train.items() if saw.get(u) != label),
            backbone_saw=len(saw),
            judged=bool(judged),
            live=live is not None,
            failed_refreshes=_failed(runs, REFRESH.name, snapshot.id),
            failed_retrains=_failed(runs, RETRAIN.name, snapshot.id),
            since_refresh_s=age_s(max(started)) if started else None,
            retrain_asked=asked,
            missing_features=missing,
        )

    def _backbone_saw(self, live: Version | None) -> dict[str, str]:
        """What counts against the next retrain: labels of the last one that was judged, or that the backbone saw."""
        retrained = [r for r in self._runs.all() if r.kind == RETRAIN.name and r.done]
        if retrained:
            return self._labels_of(retrained[-1].snapshot)
        record = self._registry.backbone(live.backbone) if live else None
        return self._labels_of(record.snapshot) if record and record.snapshot else {}

    def _labels_of(self, snapshot: str) -> dict[str, str]:
        if snapshot not in self._labels:
            try:
                labels = self._snapshots.load(snapshot).labels()
            except NotFoundError:  # beyond retention: everything counts as new
                labels = {}
            self._labels = {**dict(list(self._labels.items())[-3:]), snapshot: labels}
        return self._labels[snapshot]


def _changes(now: dict[str, str], before: dict[str, str]) -> int:
    """Labels added, changed or withdrawn."""
    return sum(now.get(u) != before.get(u) for u in now.keys() | before.keys())


def _failed(runs: list[Run], kind: str, snapshot: str) -> int:
    return sum(r.kind == kind and r.snapshot == snapshot and r.outcome == "failed" for r in runs)
