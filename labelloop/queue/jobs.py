"""Redis: named jobs with JSON payloads, progress, hints, leases and heartbeats. All of it may vanish at any time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.exceptions import DuplicateJobError, InvalidJobOperation, NoSuchJobError
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer

from labelloop.clock import LocalAges, now
from labelloop.errors import QueueError
from labelloop.queue.channels import translated
from labelloop.queue.heartbeat import ALIVE, alive
from labelloop.queue.progress import CANCELLED

FAILED_KEPT_S = 3600
CANCELLED_KEPT_S = 24 * 3600
ABANDONED_S = 3.0  # without a heartbeat for so long: after a flush the living need a beat to show themselves
FAILED_REST_S = 10


@dataclass(frozen=True, slots=True)
class JobKind:
    """A job by name: the worker's module is never imported by who enqueues."""

    name: str
    function: str
    queue: str
    timeout_s: int


FEATURISE = JobKind("featurise", "retrain_worker.jobs.featurise", "features", 600)
REFRESH = JobKind("refresh", "retrain_worker.jobs.refresh", "refresh", 300)
SCORE = JobKind("score", "retrain_worker.jobs.score", "score", 600)
RETRAIN = JobKind("retrain", "retrain_worker.jobs.retrain", "train", 6 * 3600)
TRIAL = JobKind("trial", "retrain_worker.jobs.trial", "tune", 6 * 3600)
LR_FIND = JobKind("lr_find", "retrain_worker.jobs.lr_find", "tune", 3600)
TIDY = JobKind("tidy", "retrain_worker.jobs.tidy", "features", 3600)
PREDICT = JobKind("predict", "retrain_worker.jobs.predict", "features", 1800)
KINDS = {kind.name: kind for kind in (FEATURISE, REFRESH, SCORE, RETRAIN, TRIAL, LR_FIND, TIDY, PREDICT)}


@dataclass(frozen=True, slots=True)
class JobState:
    """One job as a person sees it."""

    id: str
    kind: str
    project: str
    status: str  # queued | started | failed
    stage: str = ""
    step: int = 0
    steps: int = 0
    eta_s: float | None = None
    worker: str | None = None
    started_at: str | None = None
    queued_at: str | None = None
    error: str = ""


class JobQueue:
    """Enqueues by name, looks at what waits and runs, cleans up after dead workers."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._silent = LocalAges()

    def enqueue(self, kind: JobKind, job_id: str, payload: Mapping[str, Any], *, front: bool = False) -> bool:
        """Queue one job; False where a job of that id waits or runs already, or has failed a moment ago."""
        try:
            if not self._make_room(job_id):
                return False
            self._queue(kind.queue).enqueue_call(
                kind.function, kwargs=dict(payload), timeout=kind.timeout_s, result_ttl=60, failure_ttl=FAILED_KEPT_S,
                job_id=job_id, unique=True, at_front=front, description=f"{kind.name} {payload.get('project', '')}",
                meta={"kind": kind.name, "project": payload.get("project", ""), "queued_at": now()},
            )  # fmt: skip
            return True
        except DuplicateJobError:
            return False
        except RedisError as error:
            raise QueueError(f"cannot queue {job_id}: {error}; is Redis up, and LABELLOOP_REDIS_URL right?") from error

    def _make_room(self, job_id: str) -> bool:
        """An ended job would block its id for as long as its result is kept; a failed one is not tried in a rush."""
        job = self._fetch_or_none(job_id)
        if job is None:  # what a worker that was believed dead still writes of it would block the id for ever
            self.redis.delete(Job.key_for(job_id))
            return True
        status = job.get_status()
        if status == JobStatus.FAILED and job.ended_at and 0 <= _since(job.ended_at) < FAILED_REST_S:
            return False
        if status in {JobStatus.FAILED, JobStatus.FINISHED, JobStatus.CANCELED, JobStatus.STOPPED}:
            job.delete()
            return True
        return False

    def cancel(self, job_id: str, *, by: str) -> None:
        """Ask a job to end: one that runs does at its next step, one that waits when its turn comes."""
        with translated("cancel a job"):
            self.redis.set(CANCELLED + job_id, by, ex=CANCELLED_KEPT_S)

    def active(self, kind: JobKind, project: str) -> list[str]:
        """Ids of the jobs of one kind and project that wait or run, also those that a flushed Redis has forgotten."""
        prefix = f"{kind.name}_{project}_"
        with translated("look at the queue"):
            queue = self._queue(kind.queue)
            ids = [*queue.get_job_ids(), *self._started(queue).get_job_ids(cleanup=False)]
        ids += [str(facts["job"]) for facts in alive(self.redis).values() if facts.get("job")]
        return [i for i in dict.fromkeys(ids) if i.startswith(prefix)]

    def at_work(self, kind: JobKind, project: str) -> set[str]:
        """The workers whose heartbeat says that they run a job of one kind and project."""
        prefix = f"{kind.name}_{project}_"
        with translated("look at the workers"):
            living = alive(self.redis).items()
        return {n.removeprefix("worker:") for n, facts in living if str(facts.get("job") or "").startswith(prefix)}

    def jobs(self) -> list[JobState]:
        """Everything that waits, runs or has failed, running first."""
        with translated("look at the queue"):
            states: list[JobState] = []
            for name in sorted({k.queue for k in KINDS.values()}):
                queue = self._queue(name)
                states += self._states(self._started(queue).get_job_ids(cleanup=False), "started")
                states += self._states(queue.get_job_ids(0, 20), "queued")
                failed = FailedJobRegistry(queue=queue, serializer=JSONSerializer)
                states += self._states(failed.get_job_ids(cleanup=False), "failed")
        return sorted(states, key=lambda j: ("started", "queued", "failed").index(j.status))

    def depths(self) -> dict[str, int]:
        """Jobs that wait, per queue."""
        with translated("look at the queue"):
            return {name: self._queue(name).count for name in sorted({k.queue for k in KINDS.values()})}

    def reap(self) -> list[str]:
        """Remove jobs whose worker is gone; what they were for is derived again. Returns their ids."""
        with translated("clean up the queue"):
            registries = [self._started(self._queue(name)) for name in {k.queue for k in KINDS.values()}]
            silent = {i: r for r in registries for i in r.get_job_ids(cleanup=False) if self._is_silent(i)}
            abandoned = [i for i, age_s in self._silent.ages_s(silent).items() if age_s > ABANDONED_S]
            for job_id in abandoned:
                self._forget(silent[job_id], job_id)
        return abandoned

    def _forget(self, registry: StartedJobRegistry, job_id: str) -> None:
        entries = [e for e in _text(self.redis.zrange(registry.key, 0, -1)) if registry.parse_job_id(e) == job_id]
        if entries:
            self.redis.zrem(registry.key, *entries)
        with suppress(NoSuchJobError, InvalidJobOperation):
            self._fetch(job_id).delete()

    def _is_silent(self, job_id: str) -> bool:
        job = self._fetch_or_none(job_id)
        return job is None or not job.worker_name or not self.redis.exists(f"{ALIVE}worker:{job.worker_name}")

    def _states(self, ids: Sequence[str], status: str) -> list[JobState]:
        return [_state(job, status) for i in ids if (job := self._fetch_or_none(i)) is not None]

    def _fetch(self, job_id: str) -> Job:
        return Job.fetch(job_id, connection=self.redis, serializer=JSONSerializer)

    def _fetch_or_none(self, job_id: str) -> Job | None:
        try:
            return self._fetch(job_id)
        except NoSuchJobError:
            return None

    def _queue(self, name: str) -> Queue:
        return Queue(name, connection=self.redis, serializer=JSONSerializer)

    def _started(self, queue: Queue) -> StartedJobRegistry:
        return StartedJobRegistry(queue=queue, serializer=JSONSerializer)


def job_id(kind: JobKind, project: str, *parts: object) -> str:
    """The id under which a job is queued at most once."""
    return "_".join([kind.name, project, *map(str, parts)])


def _since(moment: datetime) -> float:
    return (datetime.now(UTC) - moment.replace(tzinfo=UTC)).total_seconds()


def _last_line(job: Job) -> str:
    result = job.latest_result()
    lines = (result.exc_string or "").strip().splitlines() if result else []
    return lines[-1] if lines else ""


def _state(job: Job, status: str) -> JobState:
    meta = job.get_meta(refresh=False) or {}
    error = _last_line(job) if status == "failed" else ""
    return JobState(
        id=job.id, kind=meta.get("kind", "?"), project=meta.get("project", ""), status=status,
        stage=meta.get("stage", ""), step=meta.get("step", 0), steps=meta.get("steps", 0), eta_s=meta.get("eta_s"),
        worker=job.worker_name, started_at=job.started_at.isoformat() if job.started_at else None,
        queued_at=meta.get("queued_at"), error=error,
    )  # fmt: skip


def _text(entries: Any) -> list[str]:
    return [e.decode() if isinstance(e, bytes) else str(e) for e in entries]
