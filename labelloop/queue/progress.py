"""Stage, step and time left of the running job; whether a person has cancelled it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from redis.exceptions import RedisError
from rq import get_current_job
from rq.job import Job

from labelloop.clock import now
from labelloop.errors import CancelledError, StorageError

CANCELLED = "labelloop:cancelled:"  # one key per job that a person has cancelled: who
REPORT_EVERY_S = 0.5  # progress within a stage
WANTED_EVERY_S = 5.0  # long work asks whether it was given up meanwhile


class JobProgress:
    """Stage, step and time left, written into the running job's meta; silent without one.

    Long work reports again and again. A report raises CancelledError where a person has cancelled the job, and what
    ``require_wanted`` raises where the run was given up.
    """

    def __init__(self, job: Job | None = None, *, require_wanted: Callable[[], None] | None = None) -> None:
        self._job, self._reported_at = job, float("-inf")
        self._require_wanted, self._checked_at = require_wanted, time.monotonic()
        self._stage, self._begun, self._first = "", datetime.now(UTC), 0

    @staticmethod
    def of_job(*, require_wanted: Callable[[], None] | None = None) -> JobProgress:
        """Of the job that this process runs now."""
        return JobProgress(get_current_job(), require_wanted=require_wanted)

    def report(self, stage: str, step: int = 0, steps: int = 0) -> None:
        """Say where the job is; time left is extrapolated within the stage."""
        if stage == self._stage and step < steps and time.monotonic() - self._reported_at < REPORT_EVERY_S:
            return
        self._reported_at = time.monotonic()
        moment = datetime.now(UTC)
        if stage != self._stage:
            self._stage, self._begun, self._first = stage, moment, step
        spent, done = (moment - self._begun).total_seconds(), step - self._first
        eta = spent / done * (steps - step) if done > 0 and steps else None
        if self._job is not None:
            self._job.meta.update(stage=stage, step=step, steps=steps, eta_s=eta, at=now())
            with suppress(RedisError):  # progress is a courtesy: never a reason to fail
                self._job.save_meta()
            check_cancelled(self._job)
        if self._require_wanted and time.monotonic() - self._checked_at > WANTED_EVERY_S:
            self._checked_at = time.monotonic()
            with suppress(StorageError):  # who cannot be asked has not given it up
                self._require_wanted()


def check_cancelled(job: Job | None) -> None:
    """CancelledError where a person has cancelled it; who cannot be asked does not know of any."""
    by = None
    with suppress(RedisError):
        by = job.connection.get(CANCELLED + job.id) if job else None
    if by:
        raise CancelledError(f"cancelled by {by.decode()}")
