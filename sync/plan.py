"""Snapshot, run records and policy in; queued jobs out. Everything is derived, nothing is remembered."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog

from labelloop.clock import LocalAges, age_s, parse
from labelloop.code import training_code
from labelloop.errors import NotFoundError, SupersededError
from labelloop.objects.damage import UNREADABLE
from labelloop.queue.jobs import KINDS, REFRESH, RETRAIN, JobQueue, job_id
from labelloop.records.images import Split
from labelloop.records.runs import WITHOUT, Run
from labelloop.records.snapshots import Snapshot, as_of
from labelloop.records.versions import Version
from labelloop.rules.attempts import begun, failed_tries, tries
from labelloop.rules.cron import cron_times
from labelloop.rules.migration import in_words, undecided
from labelloop.rules.revisions import aside
from labelloop.rules.schema import LabelRules
from labelloop.rules.trigger import Action, Decision, TrainingNeeds, decide, moved
from labelloop.store.catalogue import Catalogue
from labelloop.store.features import FeatureIndex, lacks
from labelloop.store.projects import ProjectRecord
from labelloop.store.registry import Registry
from labelloop.store.requests import Request, RequestStore, retries
from labelloop.store.runs import RunStore
from labelloop.store.snapshots import SnapshotStore
from labelloop.store.verdicts import left_by, next_wish

ORPHANED_S = 4.0  # a record that says "running" without a job for so long: its worker died
RETRY_CAP_S = 30.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """What was decided in this turn, and what it was decided from."""

    progress: TrainingNeeds
    decision: Decision
    running: tuple[str, ...]  # kinds that wait or run already
    without: tuple[tuple[int, str], ...] = ()  # (task, image): labelled, and not learned from for want of features
    aside: Mapping[str, int] = field(default_factory=dict)  # why -> labels that do not count

    def facts(self) -> dict[str, Any]:
        """For `labelloop status`."""
        return {**asdict(self.decision), "running": list(self.running), "changes": self.progress.changes,
                "labels": dict(self.progress.labels), "aside": dict(self.aside)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Try:
    """One run to be."""

    snapshot: str
    attempt: int
    wish: str  # `labelloop.store.verdicts`: what it answers if nobody does before


class Planner:
    """Decides for one project and queues what is wanted and not under way."""

    def __init__(
        self, project: ProjectRecord, runs: RunStore, requests: RequestStore, queue: JobQueue,
        snapshots: SnapshotStore, registry: Registry,
    ) -> None:  # fmt: skip
        self._project, self._runs, self._requests, self._queue = project, runs, requests, queue
        self._snapshots, self._registry = snapshots, registry
        self._rules = LabelRules.of(project.config)
        self._newest: Snapshot | None = None
        self._orphans = LocalAges()
        self._tried: dict[str, float] = {}  # kind -> when it was queued last, by our own clock
        self._labels: dict[str, dict[str, str]] = {}  # snapshot -> its labels; the few that comparisons need

    def plan(
        self, snapshot: Snapshot, live: Version | None, catalogue: Catalogue, index: FeatureIndex | None
    ) -> TurnPlan:
        """Decide, then queue.

        What is under way is looked up first: a run that ends while we read has written its verdict before it leaves.
        """
        active = {k.name for k in (REFRESH, RETRAIN) if self._queue.active(k, self._project.key)}
        self.clean()
        recorded = self._runs.all()
        unended = {r.kind for r in recorded if r.outcome == "running"}  # a second one would make a second verdict
        runs = [r for r in recorded if r.config == self._project.config.hash]
        wishes = self._wishes(runs)
        progress = self._progress(snapshot, live, catalogue, index, runs, wishes)
        decision = decide(progress, self._project.config)
        under_way = [k for k in (REFRESH, RETRAIN) if k.name in active | unended]
        for action in decision.actions:
            kind = KINDS[action.kind]
            learns = self._learns_from(kind.name, snapshot.id, runs, wishes)
            attempt = 1 + sum(r.kind == kind.name and r.snapshot == learns for r in runs)
            tried = len(tries(runs, kind.name, snapshot.id))
            if kind not in under_way and not self._rests(kind.name, 1 + tried):
                wish = next_wish(kind.name, recorded, self._registry.deployments())
                self._enqueue(action, Try(learns, attempt, wish), wishes)
                under_way.append(kind)
        without = self._without(snapshot, catalogue, index)
        put_aside = aside(self._read(snapshot).tasks.values(), catalogue.images, index or {})
        return TurnPlan(progress, decision, tuple(k.name for k in under_way), without, put_aside)

    def _without(
        self, snapshot: Snapshot, catalogue: Catalogue, index: FeatureIndex | None
    ) -> tuple[tuple[int, str], ...]:  # fmt: skip
        """Labelled tasks of which nothing is learned, although nothing is known to be wrong with their images."""
        if index is None:
            return ()
        labelled = ((t.id, t.uri, catalogue.images.get(t.uri)) for t in self._read(snapshot).tasks.values() if t.label)
        return tuple((number, uri) for number, uri, facts in labelled if uri and lacks(uri, facts, index))

    def clean(self) -> None:
        """End the records of runs whose worker died, so that they count as failed and are tried again."""
        running = {r.id: r for r in self._runs.all() if r.outcome == "running" and r.kind in KINDS}
        at_work = {k: self._queue.at_work(KINDS[k], self._project.key) for k in {r.kind for r in running.values()}}
        orphans = self._orphans.ages_s(i for i, r in running.items() if r.worker not in at_work[r.kind])
        for name, waited_s in orphans.items():
            if waited_s > ORPHANED_S:
                self._bury(running[name])

    def _bury(self, run: Run) -> None:
        """End its record with what its worker had delivered; if it lives after all, it delivers nothing more."""
        left = left_by(run, self._registry)
        with suppress(SupersededError):  # it has just ended it
            self._runs.end(run, left.outcome, left.reasons, version=left.version, detail=left.detail)
            log.warning("run ended by a dead worker", action="clean", run=run.id, outcome=left.outcome)

    def _learns_from(self, kind: str, newest: str, runs: Sequence[Run], wishes: Sequence[Request]) -> str:
        """The newest snapshot, or the one that a run without a verdict began with, while it is kept."""
        snapshot = begun(runs, kind, newest, retries=retries(wishes, kind))
        try:
            return snapshot if snapshot == newest else self._snapshots.load(snapshot).id
        except (*UNREADABLE, NotFoundError):
            return newest

    def _enqueue(self, action: Action, this: Try, wishes: Sequence[Request]) -> None:
        key, snapshot, attempt = self._project.key, this.snapshot, this.attempt
        if attempt > 1 and (wrong := self._snapshots.repair()):
            log.warning("snapshot was damaged, written again", action="mend", keys=wrong)
        name = job_id(KINDS[action.kind], key, snapshot[:12], self._project.config.hash, attempt)
        answers = [w.id for w in wishes if w.kind == action.kind]
        payload = {"project": key, **asdict(this), "answers": answers}
        if self._queue.enqueue(KINDS[action.kind], name, payload):
            self._tried[action.kind] = time.monotonic()
            log.info("queued", action="queue", kind=action.kind, why=action.why, snapshot=snapshot, attempt=attempt)

    def _rests(self, kind: str, attempt: int) -> bool:
        """A second try waits a little, the next one longer: what failed for a store's sake fails again at once."""
        since = time.monotonic() - self._tried.get(kind, float("-inf"))
        return attempt > 1 and since < min(2.0 ** min(attempt - 1, 10), RETRY_CAP_S)

    def _wishes(self, runs: list[Run]) -> list[Request]:
        """What people ask for; wishes that a run has answered since are struck off."""
        open_wishes = []
        for wish in self._requests.open():
            if any(r.done and wish.id in r.answers for r in runs):
                self._requests.done(wish)
            else:
                open_wishes.append(wish)
        return open_wishes

    def _progress(
        self, snapshot: Snapshot, live: Version | None, catalogue: Catalogue, index: FeatureIndex | None,
        runs: list[Run], wishes: Sequence[Request],
    ) -> TrainingNeeds:  # fmt: skip
        labels = {uri: label for uri, label in self._read(snapshot).labels().items() if uri}  # a task may have no image
        facts = {u: catalogue.images.get(u) for u in labels}
        waiting = {u for u, f in facts.items() if f and f.undecided}
        labels = {u: label for u, label in labels.items() if u not in waiting}
        train = {u: labels[u] for u, f in facts.items() if f and f.group and not f.problem and f.bucket is Split.TRAIN}
        judged = [r for r in self._runs.all() if r.kind == REFRESH.name and r.done]
        if judged and judged[-1].config != self._project.config.hash:
            judged = []  # also where an older config came back: what is live was learned by another one
        saw = self._backbone_saw(live)
        started = [r.started_at for r in runs if r.kind == REFRESH.name]
        counts = Counter(train.values())
        pause = self._registry.pauses.current()
        last = next((r for r in reversed(self._runs.all()) if r.kind == RETRAIN.name and r.done), None)
        since = parse(last.started_at) if last else datetime.fromtimestamp(self._project.created, UTC)
        times = cron_times(self._project.config.retrain.cron, since)
        return TrainingNeeds(
            labels={c: counts[c] for c in self._rules.choosable(self._project.schema.classes)},
            changes=_changes(labels, self._learned(judged[-1]) if judged else {}, index),
            new_for_backbone=sum(1 for u, label in train.items() if saw.get(u) != label),
            backbone_saw=len(saw),
            judged=bool(judged),
            live=live is not None,
            failed_refreshes=_failed(runs, REFRESH.name, snapshot.id, wishes),
            failed_retrains=_failed(runs, RETRAIN.name, snapshot.id, wishes),
            since_refresh_s=age_s(max(started)) if started else None,
            retrain_asked=any(w.what == RETRAIN.name for w in wishes),
            mix=moved(counts, Counter(saw.values())) if saw else 0.0,
            new_images=_more_images(index, last),
            recipe_changed=bool(last and last.recipe and last.recipe != self._project.config.recipe),
            upgraded=bool(last and last.training and last.training != training_code()),
            cron_due=times.due,
            cron_next=times.next,
            paused=f"learning is {pause.in_words}" if pause else None,
            undecided=in_words(undecided(labels.values(), self._project.schema.classes)),
        )

    def _backbone_saw(self, live: Version | None) -> dict[str, str]:
        """What counts against the next retrain: labels of the last one that was judged, or that the backbone saw."""
        retrained = [r for r in self._runs.all() if r.kind == RETRAIN.name and r.done]
        if retrained:
            return self._labels_of(retrained[-1].snapshot, retrained[-1].started_at)
        try:
            record = self._registry.backbone(live.backbone) if live else None
        except UNREADABLE:  # noted: everything counts as new
            return {}
        return self._labels_of(record.snapshot, record.created_at) if record and record.snapshot else {}

    def _learned(self, run: Run) -> dict[str, str]:
        """The labels of a run's snapshot, without those whose images had no features then."""
        without = set(run.detail.get(WITHOUT, ()))
        labels = self._labels_of(run.snapshot, run.started_at)
        return {u: label for u, label in labels.items() if u not in without} if without else labels

    def _read(self, snapshot: Snapshot) -> Snapshot:
        """The newest snapshot with classes as they count."""
        if self._newest is None or self._newest.id != snapshot.id:
            self._newest = self._rules.read(snapshot)
        return self._newest

    def _labels_of(self, snapshot: str, moment: str) -> dict[str, str]:
        """``moment``: when it was the newest, for where it is damaged."""
        if snapshot not in self._labels:
            try:
                labels = self._rules.read(self._snapshots.load(snapshot)).labels()
            except NotFoundError:  # beyond retention: everything counts as new
                labels = {}
            except UNREADABLE:
                labels = as_of(self._newest, moment).labels() if self._newest and moment else {}
            self._labels = {**dict(list(self._labels.items())[-3:]), snapshot: labels}
        return self._labels[snapshot]


def _failed(runs: Sequence[Run], kind: str, snapshot: str, wishes: Sequence[Request]) -> int:
    return len(failed_tries(runs, kind, snapshot, retries=retries(wishes, kind)))


def _more_images(index: FeatureIndex | None, last: Run | None) -> int:
    """Than the last retrain began with; none before the first, nor where it did not say."""
    if index is None or last is None or last.images is None:
        return 0
    return max(0, len(index) - last.images)


def _changes(now: dict[str, str], before: dict[str, str], index: FeatureIndex | None) -> int:
    """Labels added, changed or withdrawn; new ones count when their images have features."""
    new = {u for u in now.keys() - before.keys() if index is not None and u in index}
    return len(new) + sum(now.get(u) != label for u, label in before.items())
