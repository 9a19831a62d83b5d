"""Redis and what waits in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redis.exceptions import AuthenticationError, RedisError

from labelloop.clock import age_s
from labelloop.errors import QueueError
from labelloop.queue.jobs import FEATURISE, KINDS, JobState
from operations.doctor.checks import FIRST_S, DoctorCheck
from operations.doctor.finding import Finding, fine, warn, wrong
from operations.doctor.scene import Scene

AREA = "Redis"
REACHED = "Redis"
OLDEST_S = 600.0  # a job that waits longer is stuck
OLDEST_FEATURES_S = 3600.0  # a large pool takes its time
LOWEST = (6, 2)  # what RQ needs


def first(scene: Scene) -> list[DoctorCheck]:
    """What all that goes through the queue needs."""
    return [DoctorCheck(AREA, REACHED, lambda: reached(scene), limit_s=FIRST_S)]


def checks(scene: Scene) -> list[DoctorCheck]:
    """How it is set up, and what waits."""
    return [
        DoctorCheck(AREA, "eviction", lambda: eviction(_info(scene)), (REACHED,)),
        DoctorCheck(AREA, "append-only file", lambda: append_only(_info(scene)), (REACHED,)),
        DoctorCheck(AREA, "waiting jobs", lambda: waiting(scene.jobs()), (REACHED,)),
        DoctorCheck(AREA, "failed jobs", lambda: failed(scene.jobs()), (REACHED,)),
    ]


def reached(scene: Scene) -> Finding:
    """Address, password and protocol in one."""
    try:
        return release(_info(scene))
    except QueueError as error:
        return wrong(REACHED, str(error), "see that it runs, and LABELLOOP_REDIS_URL holds its address and password")


def release(info: Mapping[str, Any]) -> Finding:
    """Streams and atomic moves are newer than some servers."""
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < LOWEST:
        return wrong(REACHED, f"{name} {version} is too old for the queue", "use Valkey, or Redis 6.2 or newer")
    return fine(REACHED, f"{name} {version}")


def eviction(info: Mapping[str, Any]) -> Finding:
    """A full server must refuse a job, never forget one."""
    policy = info.get("maxmemory_policy")
    if policy in {None, "noeviction"}:
        return fine("eviction", str(policy or "not reported by this server"))
    return wrong("eviction", f"{policy}: a full server forgets jobs and leases", "set maxmemory-policy noeviction")


def append_only(info: Mapping[str, Any]) -> Finding:
    """All can be derived again, but it takes a moment, and jobs that ran count as abandoned."""
    if info.get("aof_enabled") in {None, 1}:
        return fine("append-only file", "on" if info.get("aof_enabled") else "not reported by this server")
    return warn("append-only file", "off: after a restart the queue is empty until it is derived again",
                "set appendonly yes")  # fmt: skip


def waiting(jobs: Sequence[JobState]) -> Finding:
    """A job that waits for long has no worker, or one that is stuck."""
    queued = [(job, age_s(job.queued_at)) for job in jobs if job.status == "queued" and job.queued_at]
    stuck = [(job, age) for job, age in queued if age > _limit(job)]
    if not stuck:
        return fine("waiting jobs", f"{len(queued)} wait, none for long" if queued else "none")
    job, age = max(stuck, key=lambda pair: pair[1])
    queue = KINDS[job.kind].queue if job.kind in KINDS else "?"
    return wrong("waiting jobs", f"{len(stuck)} wait for long, {job.id} for {age / 60:.0f} min", f"see what the worker "
                 f"of queue {queue} does, or start one: python -m retrain_worker {queue}")  # fmt: skip


def failed(jobs: Sequence[JobState]) -> Finding:
    """What nobody derives again stays undone."""
    failures = [job for job in jobs if job.status == "failed"]
    if not failures:
        return fine("failed jobs", "none in the last hour")
    return warn("failed jobs", f"{len(failures)} in the last hour, e.g. {failures[0].id}: {failures[0].error}", "see "
                "`labelloop queue failed` for the reasons, and `labelloop queue retry` to try again")  # fmt: skip


def _limit(job: JobState) -> float:
    return OLDEST_FEATURES_S if job.kind == FEATURISE.name else OLDEST_S


def _info(scene: Scene) -> Mapping[str, Any]:
    def read() -> Mapping[str, Any]:
        try:
            return dict(scene.deployment.queue.redis.info())
        except AuthenticationError as error:
            raise QueueError(f"Redis does not accept the password: {error}") from error
        except RedisError as error:
            raise QueueError(f"Redis cannot be reached: {error}") from error

    return scene.once("redis info", read)
