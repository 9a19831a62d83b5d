"""Open searches in, queued trials out. Derived from object storage: a lost queue forgets no trial."""

from __future__ import annotations

import time

import structlog

from labelloop.objects.damage import Damage
from labelloop.objects.storage import ObjectStore
from labelloop.queue.jobs import TRIAL, JobQueue, job_id
from labelloop.store.projects import ProjectRecord
from labelloop.store.studies import Study, StudyStore, missing

LOOK_EVERY_S = 15.0
BUSY_EVERY_S = 2.0

log = structlog.get_logger()


class Studies:
    """One project's. A search that has ended is not looked at again."""

    def __init__(
        self, project: ProjectRecord, store: ObjectStore, queue: JobQueue, damage: Damage | None = None
    ) -> None:  # fmt: skip
        self._project, self._studies, self._queue = project, StudyStore(store, damage), queue
        self._ended: set[str] = set()
        self._due = 0.0

    def turn(self, *, nudged: bool) -> bool:
        """Queue what is missing; True where a trial was queued."""
        if time.monotonic() < self._due and not nudged:
            return False
        studies = self._studies.all(without=self._ended)
        queued = sum(map(self._queue_missing, studies))
        self._due = time.monotonic() + (BUSY_EVERY_S if {s.name for s in studies} - self._ended else LOOK_EVERY_S)
        return bool(queued)

    def _queue_missing(self, study: Study) -> int:
        open_ones = missing(study, self._studies.trials(study.name))
        if not open_ones:
            self._ended.add(study.name)
            return 0
        queued = 0
        under_way = self._queue.active(TRIAL, self._project.key)  # also what a flushed Redis has forgotten
        for number in open_ones:
            if job_id(TRIAL, self._project.key, study.name, number) in under_way:
                continue
            payload = {"project": self._project.key, "study": study.name, "number": number}
            queued += self._queue.enqueue(TRIAL, job_id(TRIAL, self._project.key, study.name, number), payload)
        if queued:
            log.info("queued", action="queue", kind=TRIAL.name, project=self._project.key, count=queued,
                     why=f"trials of study {study.name}")  # fmt: skip
        return queued
