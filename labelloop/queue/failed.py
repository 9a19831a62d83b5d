"""Failed jobs of the queue: whole error, what to do, and the way back. Kept for an hour; run records last longer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError
from rq import Queue
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from labelloop.clock import now
from labelloop.errors import NotFoundError, QueueError
from labelloop.queue.jobs import KINDS, REFRESH, RETRAIN, JobQueue

OURS = "labelloop.errors."  # where our errors live says nothing to a reader
RECORDED = (REFRESH.name, RETRAIN.name)  # derived again by the watcher, under a new id
REDIS_AWAY = "cannot read the failed jobs: {error}; is Redis up, and LABELLOOP_REDIS_URL right?"

ADVICE = (  # what the error looks like -> what to do about it; the first that fits
    (r"CUDA out of memory|OutOfMemoryError|MemoryError", "give the worker more memory, or lower retrain.batch_size"),
    (r"JobTimeoutException", "the job took too long: check whether the worker's machine is overloaded"),
    (r"AbandonedJobError|work-horse", "its worker died, most often out of memory: check the worker's log"),
    (r"NotFoundError|CorruptArtefactError", "something it needs is missing or damaged: restore it from a backup"),
    (r"StorageError", "see that the S3 endpoint answers and the credentials are right"),
    (r"RedisError|QueueError|redis\.exceptions", "see that Redis answers"),
    (r"ModuleNotFoundError|ImportError", "the worker's installation is incomplete: build it again (`make setup`)"),
    (
        r"SettingsError: backbone",
        "correct `backbone:` in the project's YAML, then `labelloop init --config FILE "
        "--image-uri …` with its image URI",
    ),
    (r"SettingsError", "correct the settings, then start the worker again"),
)


@dataclass(frozen=True, slots=True)
class FailedJob:
    """One job that failed."""

    id: str
    kind: str
    project: str
    failed_at: str | None
    worker: str | None
    error: str  # the whole traceback
    payload: Mapping[str, Any] = field(default_factory=dict)

    @property
    def why(self) -> str:
        """The error itself, without the way to it; some span several lines."""
        lines = self.error.strip().splitlines()
        start = max((i for i, line in enumerate(lines) if line.startswith(("  ", "\t"))), default=-1)
        return "\n".join(lines[start + 1 :] or lines[-1:]).removeprefix(OURS)

    @property
    def recorded(self) -> bool:
        """Whether each attempt leaves a run record, and the watcher counts them."""
        return self.kind in RECORDED

    @property
    def advice(self) -> str:
        """What to do."""
        fitting = (advice for pattern, advice in ADVICE if re.search(pattern, self.why))
        return next(fitting, "read the error; the worker's log says what came before it")


class FailedJobs:
    """The failed registries of all queues."""

    def __init__(self, queue: JobQueue) -> None:
        self._redis = queue.redis

    def all(self) -> list[FailedJob]:
        """Every failed job that is still kept, newest first; QueueError."""
        try:
            jobs = [job for name in sorted({k.queue for k in KINDS.values()}) for job in self._jobs(name)]
            failed = [_failed(job) for job in jobs]
        except RedisError as error:
            raise QueueError(REDIS_AWAY.format(error=error)) from error
        return sorted(failed, key=lambda j: j.failed_at or "", reverse=True)

    def requeue(self, job_id: str) -> bool:
        """Queue it again under its id; False where the watcher was faster, or it is gone."""
        try:
            job = self._fetch(job_id)
            job.meta.update(queued_at=now(), stage="", step=0, steps=0, eta_s=None)
            self._registry(job.origin).requeue(job)
        except (NoSuchJobError, InvalidJobOperation):
            return False
        except RedisError as error:
            raise QueueError(REDIS_AWAY.format(error=error)) from error
        return True

    def discard(self, job_id: str) -> bool:
        """Forget it; False where it is no longer there, or has been queued again."""
        try:
            job = self._fetch(job_id)
            if job.id not in self._registry(job.origin).get_job_ids(cleanup=False):
                return False
            job.delete()
        except NoSuchJobError:
            return False
        except RedisError as error:
            raise QueueError(REDIS_AWAY.format(error=error)) from error
        return True

    def _jobs(self, queue: str) -> list[Job]:
        jobs = []
        for job_id in self._registry(queue).get_job_ids(cleanup=False):
            try:
                jobs.append(self._fetch(job_id))
            except NoSuchJobError:  # its time ran out; the registry is tidied by the workers
                continue
        return jobs

    def _fetch(self, job_id: str) -> Job:
        return Job.fetch(job_id, connection=self._redis, serializer=JSONSerializer)

    def _registry(self, queue: str) -> FailedJobRegistry:
        rq_queue = Queue(queue, connection=self._redis, serializer=JSONSerializer)
        return FailedJobRegistry(queue=rq_queue, serializer=JSONSerializer)


def choose(jobs: Sequence[FailedJob], names: Sequence[str]) -> list[FailedJob]:
    """The jobs that are meant: each name is an id, or a part of one that no other has; NotFoundError."""
    return [_one(jobs, name) for name in dict.fromkeys(names)]


def _one(jobs: Sequence[FailedJob], name: str) -> FailedJob:
    matches = [j for j in jobs if j.id == name] or [j for j in jobs if name and name in j.id]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise NotFoundError(f"no failed job is called {name!r}; `labelloop queue failed` lists them")
    raise NotFoundError(f"{len(matches)} failed jobs are called {name!r}: {', '.join(j.id for j in matches[:4])}")


def _failed(job: Job) -> FailedJob:
    meta = job.get_meta(refresh=False) or {}
    result = job.latest_result()
    return FailedJob(
        id=job.id, kind=meta.get("kind", "?"), project=meta.get("project", ""),
        failed_at=job.ended_at.isoformat() if job.ended_at else None, worker=job.worker_name,
        error=(result.exc_string or "").strip() if result else "", payload=dict(job.kwargs or {}),
    )  # fmt: skip
