"""When a project was tidied last in, at most one queued `tidy` a day out."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import structlog

from labelloop.objects.storage import ObjectStore
from labelloop.queue.jobs import TIDY, JobQueue, job_id
from labelloop.store.projects import ProjectRecord
from labelloop.upkeep.retention import is_due
from labelloop.upkeep.tidying import last_tidied

LOOK_EVERY_S = 600.0

log = structlog.get_logger()


class Upkeep:
    """One project's. Whether it is due is read from object storage: a lost queue forgets nothing."""

    def __init__(self, project: ProjectRecord, store: ObjectStore, queue: JobQueue) -> None:
        self._project, self._store, self._queue = project, store, queue
        self._looked_at = float("-inf")

    def turn(self) -> bool:
        """Queue what is due; cheap where it was looked at a moment ago. True where a job was queued."""
        if not self._project.config.retention.automatic or time.monotonic() - self._looked_at < LOOK_EVERY_S:
            return False
        self._looked_at = time.monotonic()
        last = last_tidied(self._store)
        if not is_due(last.at if last else None, self._project.created, datetime.now(UTC)):
            return False
        queued = self._queue.enqueue(TIDY, job_id(TIDY, self._project.key, "daily"), {"project": self._project.key})
        if queued:
            log.info("queued", action="queue", kind=TIDY.name, project=self._project.key, why="once a day")
        return queued
