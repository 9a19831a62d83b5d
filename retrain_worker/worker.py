"""An RQ worker that stays resident: no fork, so CUDA and warm caches are safe, with a heartbeat of its own."""

from __future__ import annotations

import os
import resource
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer

from labelloop.clock import age_s
from labelloop.errors import QueueError
from labelloop.queue.channels import NUDGE_CHANNEL, publish
from labelloop.queue.heartbeat import ALIVE, Heartbeat, alive
from retrain_worker.jobs import lost_rows
from retrain_worker.metrics import WorkerMetrics

WORKER_TTL_S = 25  # RQ waits 15 s less for a job, and 10 s more for an answer: a dead connection is noticed in 20 s


class ResidentWorker(SimpleWorker):  # type: ignore[misc]
    """Runs jobs in its own process. A job that kills it is found abandoned within seconds and derived again."""

    heart: Heartbeat  # what it works on is known even where Redis has lost its queues
    metrics: WorkerMetrics
    max_connection_wait_time = 3.0  # RQ's minute would be added to every outage of Redis

    def perform_job(self, job: Any, queue: Any) -> bool:
        """Run one job, and tell the watcher that something has ended."""
        self.heart.say(job=job.id)
        with structlog.contextvars.bound_contextvars(job=job.id, project=job.meta.get("project")):
            succeeded = self._measured(job, queue)
        self.heart.say(job=None, damaged=lost_rows())
        publish(self.connection, NUDGE_CHANNEL, {"action": "job-ended", "project": job.meta.get("project")})
        return succeeded

    def _measured(self, job: Any, queue: Any) -> bool:
        """Run it, and count how it went."""
        if queued_at := job.meta.get("queued_at"):
            self.metrics.waited.labels(str(job.meta.get("kind", "?"))).observe(max(age_s(queued_at), 0))
        began = time.monotonic()
        with self.metrics.busy.track_inprogress():
            succeeded = bool(super().perform_job(job, queue))
        result = None
        with suppress(RedisError):
            result = job.return_value() if succeeded else None
        self.metrics.ended(job.meta, succeeded=succeeded, took_s=time.monotonic() - began, result=result)
        return succeeded


def bury_dead(redis: Redis) -> None:
    """Take the heartbeats of this host's dead workers away, so that what they did is found abandoned at once."""
    host = f"worker:{socket.gethostname()}-"
    with suppress(QueueError, RedisError):
        for name in alive(redis):
            pid = name.removeprefix(host).partition("-")[0]
            if (
                name.startswith(host)
                and pid.isdigit()
                and (int(pid) == os.getpid() or not Path(f"/proc/{pid}").exists())
            ):
                redis.delete(ALIVE + name)


def gpus() -> int:
    """NVIDIA devices that this process sees; asked of the system, for torch takes seconds to import."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def _allow_many_files() -> None:
    """Every shard of features that is mapped holds a file open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run_worker(redis: Redis, beats: Redis, queues: Sequence[str], metrics: WorkerMetrics | None = None) -> None:
    """Work until SIGTERM; the running job is finished first. ``beats``: a client with short time-outs."""
    # a container that is restarted has its host name and pid again: the token tells its processes apart
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    bury_dead(beats)
    heartbeat = Heartbeat(beats, f"worker:{name}", {"queues": list(queues), "pid": os.getpid(), "gpus": gpus()})
    heartbeat.start()
    _allow_many_files()
    worker = ResidentWorker(
        [Queue(q, connection=redis, serializer=JSONSerializer) for q in queues],
        name=name, connection=redis, serializer=JSONSerializer, maintenance_interval=30,
        worker_ttl=WORKER_TTL_S,
    )  # fmt: skip
    worker.heart, worker.metrics = heartbeat, metrics or WorkerMetrics()
    try:
        worker.work(logging_level="WARNING", with_scheduler=False)
    finally:
        heartbeat.stop()
