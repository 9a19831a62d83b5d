"""An RQ worker that stays resident: no fork, so CUDA and warm caches are safe, with a heartbeat of its own."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Sequence
from typing import Any

from redis import Redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer

from labelloop.queue import NUDGE_CHANNEL, Heartbeat, publish


class ResidentWorker(SimpleWorker):  # type: ignore[misc]
    """Runs jobs in its own process. A job that kills it is found abandoned within seconds and derived again."""

    heart: Heartbeat  # what it works on is known even where Redis has lost its queues

    def perform_job(self, job: Any, queue: Any) -> bool:
        """Run one job, and tell the watcher that something has ended."""
        self.heart.say(job=job.id)
        succeeded = bool(super().perform_job(job, queue))
        self.heart.say(job=None)
        publish(self.connection, NUDGE_CHANNEL, {"action": "job-ended", "project": job.meta.get("project")})
        return succeeded


def _allow_many_files() -> None:
    """Every shard of features that is mapped holds a file open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run_worker(redis: Redis, queues: Sequence[str]) -> None:
    """Work until SIGTERM; the running job is finished first."""
    name = f"{socket.gethostname()}-{os.getpid()}"
    heartbeat = Heartbeat(redis, f"worker:{name}", {"queues": list(queues)})
    heartbeat.start()
    _allow_many_files()
    worker = ResidentWorker(
        [Queue(q, connection=redis, serializer=JSONSerializer) for q in queues],
        name=name, connection=redis, serializer=JSONSerializer, maintenance_interval=30,
    )  # fmt: skip
    worker.heart = heartbeat
    try:
        worker.work(logging_level="WARNING", with_scheduler=False)
    finally:
        heartbeat.stop()
