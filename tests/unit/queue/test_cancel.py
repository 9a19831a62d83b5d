"""A person ends a job: at its next step where it runs, at its start where it waits, and it is not run again."""

from __future__ import annotations

from typing import Any

import pytest
from redis import RedisError

from labelloop.errors import CancelledError
from labelloop.queue.progress import CANCELLED, JobProgress, check_cancelled


class Connection:
    """Redis as far as a job's progress needs it."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.away = False

    def get(self, key: str) -> bytes | None:
        if self.away:
            raise RedisError("away")
        return self.kept.get(key)


class Job:
    id = "retrain_main_1"

    def __init__(self) -> None:
        self.connection, self.meta, self.saved = Connection(), dict[str, Any](), 0

    def save_meta(self) -> None:
        self.saved += 1


def test_a_running_job_ends_at_its_next_report() -> None:
    job = Job()
    progress = JobProgress(job)  # type: ignore[arg-type]
    progress.report("fine-tune", 0, 10)
    job.connection.kept[CANCELLED + job.id] = b"ann"
    with pytest.raises(CancelledError, match="cancelled by ann"):
        progress.report("judge", 0, 10)
    with pytest.raises(CancelledError):
        progress.report("judge", 10, 10)


def test_whom_one_cannot_ask_has_not_cancelled() -> None:
    job = Job()
    job.connection.away = True
    JobProgress(job).report("fine-tune", 0, 10)  # type: ignore[arg-type]
    check_cancelled(job)  # type: ignore[arg-type]
    check_cancelled(None)


def test_a_stream_of_steps_is_told_twice_a_second_at_most() -> None:
    job = Job()
    progress = JobProgress(job)  # type: ignore[arg-type]
    for step in range(1000):
        progress.report("fine-tune", step, 1000)
    assert job.saved < 100
    progress.report("fine-tune", 1000, 1000)
    assert job.meta["step"] == 1000
