"""The queue and the run records in; what runs, waits and has failed out, and the ways back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from labelloop.errors import LabelloopError, QueueError
from labelloop.queue.channels import NUDGE_CHANNEL, publish
from labelloop.queue.failed import RECORDED, FailedJob, FailedJobs, choose
from labelloop.queue.heartbeat import alive
from labelloop.queue.jobs import LR_FIND, RETRAIN, TRIAL, JobState
from labelloop.records.runs import Run
from labelloop.rules.attempts import failed_tries
from labelloop.rules.trigger import ATTEMPTS
from labelloop.store.pauses import PauseStore
from labelloop.store.projects import ProjectRecord
from labelloop.store.requests import RETRY, Request, RequestStore, retries
from labelloop.store.runs import RunStore
from labelloop.store.snapshots import SnapshotStore
from operations.deployment import Deployment

LONG = {RETRAIN.name, TRIAL.name, LR_FIND.name}
LOOKED_BACK = 128  # runs of each kind among which those that count are


@dataclass(frozen=True, slots=True)
class Hold:
    """A kind of run that failed so often that the watcher leaves it alone."""

    project: str  # key
    title: str
    kind: str
    failed: int
    run: str  # the last of them
    reason: str


@dataclass(frozen=True, slots=True)
class QueuePage:
    """The queue at one moment."""

    jobs: tuple[JobState, ...]  # running first, then waiting, then failed
    waiting: Mapping[str, int]  # queue -> jobs that wait
    holds: tuple[Hold, ...]
    paused: Mapping[str, str]  # title -> by whom, since when, why
    titles: Mapping[str, str]  # project key -> title
    workers: Mapping[str, int]  # queue -> processes that work on it


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of the failed jobs that were meant."""

    requeued: tuple[str, ...] = ()  # under their own id
    derived: tuple[str, ...] = ()  # taken out of the queue: the watcher makes new ones, if they are still wanted
    lifted: tuple[str, ...] = ()  # "<kind> of <title>": its failed_tries so far no longer count
    gone: tuple[str, ...] = ()  # queued again by somebody else meanwhile
    watched: bool = True  # a watcher runs, which derives


def read_queue(deployment: Deployment, records: Sequence[ProjectRecord]) -> QueuePage:
    """Look at everything."""
    living = alive(deployment.queue.redis)
    keys = {r.key: r.title for r in records}
    queues = [q for name, facts in living.items() if name.startswith("worker:") for q in facts.get("queues", ())]
    paused = {r.title: p.in_words for r in records if (p := PauseStore(deployment.within(r)).current())}
    return QueuePage(
        tuple(j for j in deployment.queue.jobs() if j.project in keys), deployment.queue.depths(),
        tuple(h for r in records for h in holds(deployment, r)), paused, keys, {q: queues.count(q) for q in queues},
    )  # fmt: skip


def failed_jobs(deployment: Deployment, records: Sequence[ProjectRecord]) -> list[FailedJob]:
    """Failed jobs of these projects that the queue still keeps, newest first."""
    keys = {r.key for r in records}
    return [j for j in FailedJobs(deployment.queue).all() if j.project in keys]


def holds(deployment: Deployment, record: ProjectRecord) -> list[Hold]:
    """Kinds of runs of one project that failed too often."""
    store = deployment.within(record)
    latest = SnapshotStore(store).latest()
    if latest is None:
        return []
    looked_at = (r for kind in RECORDED for r in islice(RunStore(store).newest(kind), LOOKED_BACK))
    runs = [r for r in looked_at if r.config == record.config.hash]
    return held(record, runs, latest.snapshot, RequestStore(store).open())


def held(record: ProjectRecord, runs: Sequence[Run], snapshot: str, wishes: Sequence[Request]) -> list[Hold]:
    """The same, from runs and open wishes. Pure; the rule is the planner's."""
    on_hold = []
    for kind in RECORDED:
        failed = failed_tries(runs, kind, snapshot, retries=retries(wishes, kind))
        if len(failed) >= ATTEMPTS:
            last = failed[-1]
            reason = last.reasons[0] if last.reasons else ""
            on_hold.append(Hold(record.key, record.title, kind, len(failed), last.short, reason))
    return on_hold


def retry(
    deployment: Deployment, records: Sequence[ProjectRecord], names: Sequence[str], *, everything: bool, by: str
) -> Retried:
    """Queue failed jobs again and lift holds. A name is a job, a part of its id, or `refresh` or `retrain`."""
    jobs = failed_jobs(deployment, records)
    kinds = set(RECORDED) if everything else {n for n in names if n in RECORDED}
    chosen = jobs if everything else _chosen(jobs, names, kinds)
    lift = {(j.project, j.kind) for j in chosen if j.recorded}
    lift |= {(h.project, h.kind) for r in records for h in holds(deployment, r) if h.kind in kinds}
    if not chosen and not lift:
        raise LabelloopError(_nothing(names, jobs))
    lifted = _lift(deployment, records, lift, by=by)  # before the job goes: the watcher may look in between
    registry = FailedJobs(deployment.queue)
    moved = [(j, registry.discard(j.id) if j.recorded else registry.requeue(j.id)) for j in chosen]
    for key in {j.project for j in chosen} | {project for project, _ in lift}:
        publish(deployment.queue.redis, NUDGE_CHANNEL, {"action": "retry", "project": key})
    return Retried(
        requeued=tuple(j.id for j, done in moved if done and not j.recorded),
        derived=tuple(j.id for j, done in moved if done and j.recorded),
        lifted=lifted, gone=tuple(j.id for j, done in moved if not done),
        watched=any(name.startswith("sync:") for name in alive(deployment.queue.redis)),
    )  # fmt: skip


def discard(
    deployment: Deployment, records: Sequence[ProjectRecord], names: Sequence[str], *, everything: bool
) -> list[str]:
    """Forget failed jobs; returns their ids. Run records stay, and so does a hold."""
    jobs = failed_jobs(deployment, records)
    chosen = jobs if everything else _chosen(jobs, names, {n for n in names if n in RECORDED})
    if not chosen:
        raise LabelloopError(_nothing(names, jobs))
    registry = FailedJobs(deployment.queue)
    return [j.id for j in chosen if registry.discard(j.id)]


def cancel(deployment: Deployment, records: Sequence[ProjectRecord], names: Sequence[str], *, by: str) -> list[str]:
    """Ask jobs that run or wait to end; returns their ids. LabelloopError where a name is not one job."""
    keys = {r.key for r in records}
    live = [j.id for j in deployment.queue.jobs() if j.project in keys and j.status in {"queued", "started"}]
    chosen: list[str] = []
    withdrawn: list[str] = []
    for name in names:
        matches = [i for i in live if name == i] or [i for i in live if name and name in i]
        if not matches and name == RETRAIN.name and (wishes := _withdrawn(deployment, records)):
            withdrawn += wishes
            continue
        if len(matches) != 1:
            near = ", ".join((matches or live)[:4]) or "none"
            raise LabelloopError(f"{name!r} is not one job that runs or waits; there are: {near}")
        chosen += matches
    for job in chosen:
        deployment.queue.cancel(job, by=by)
    return chosen + withdrawn


def _withdrawn(deployment: Deployment, records: Sequence[ProjectRecord]) -> list[str]:
    """Strike off what people have asked for and nobody has queued yet."""
    withdrawn = []
    for record in records:
        requests = RequestStore(deployment.within(record))
        for request in requests.open():
            if request.what == RETRAIN.name:
                requests.done(request)
                withdrawn.append(f"the retrain that {request.by} asked for")
    return withdrawn


def end_jobs(deployment: Deployment, record: ProjectRecord, *, by: str) -> int:
    """Ask the long jobs that run for a project that nobody looks after any more to end; returns how many.

    What waits, and what takes seconds, ends by itself. Quiet where Redis is away.
    """
    with suppress(QueueError):
        running = [j for j in deployment.queue.jobs() if j.project == record.key and j.status == "started"]
        jobs = [j for j in running if j.kind in LONG]
        for job in jobs:
            deployment.queue.cancel(job.id, by=by)
        return len(jobs)
    return 0


def _chosen(jobs: Sequence[FailedJob], names: Sequence[str], kinds: set[str]) -> list[FailedJob]:
    named = choose(jobs, [n for n in names if n not in kinds])
    return [j for j in jobs if j in named or j.kind in kinds]


def _lift(
    deployment: Deployment, records: Sequence[ProjectRecord], lift: set[tuple[str, str]], *, by: str
) -> tuple[str, ...]:
    lifted = []
    for record in records:
        for kind in RECORDED:
            if (record.key, kind) in lift:
                RequestStore(deployment.within(record)).add(RETRY, by=by, about=kind)
                lifted.append(f"{kind} of {record.title}")
    return tuple(lifted)


def _nothing(names: Sequence[str], jobs: Sequence[FailedJob]) -> str:
    if not names and jobs:
        return f"say which: names of jobs, or --all for all {len(jobs)}; `labelloop queue failed` lists them"
    return "nothing has failed" + (f" that is called {', '.join(names)}" if names else "")
