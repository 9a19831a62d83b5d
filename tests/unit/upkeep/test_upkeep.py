"""Once a day each project is tidied: derived from object storage, asked for seldom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import sync.upkeep
from labelloop.clock import LABEL_STUDIO_FORMAT
from labelloop.config.project import ProjectConfig, parse_config
from labelloop.labels.results import make_label_config
from labelloop.objects.formats import Kind, write
from labelloop.objects.storage import MemoryStore
from labelloop.queue.jobs import JobKind
from labelloop.store.projects import ProjectRecord
from labelloop.upkeep.tidying import DONE
from sync.upkeep import Upkeep


class FakeQueue:
    """Remembers what was queued."""

    def __init__(self) -> None:
        self.jobs: dict[str, Mapping[str, Any]] = {}

    def enqueue(self, kind: JobKind, job_id: str, payload: Mapping[str, Any]) -> bool:
        assert kind.function == "retrain_worker.jobs.tidy"
        if job_id in self.jobs:
            return False
        self.jobs[job_id] = payload
        return True


def record(config: ProjectConfig | None = None, *, hours: float = 48) -> ProjectRecord:
    created = int((datetime.now(UTC) - timedelta(hours=hours)).timestamp())
    return ProjectRecord("main", 1, created, "t", config or ProjectConfig(), make_label_config(["a", "b"]), "s3://i/")


def upkeep(project: ProjectRecord, store: MemoryStore) -> Upkeep:
    return Upkeep(project, store, FakeQueue())  # type: ignore[arg-type]


def tidied(store: MemoryStore, *, hours: float) -> None:
    at = (datetime.now(UTC) - timedelta(hours=hours)).strftime(LABEL_STUDIO_FORMAT)
    store.put(DONE, write(Kind.TIDY, {"at": at, "removed": {}}))


def test_an_old_project_that_never_was_is_tidied() -> None:
    assert upkeep(record(), MemoryStore()).turn()


def test_a_new_project_is_not() -> None:
    assert not upkeep(record(hours=1), MemoryStore()).turn()


@pytest.mark.parametrize(("hours", "due"), [(23, False), (25, True)])
def test_one_day_lies_between(hours: float, due: bool) -> None:
    store = MemoryStore()
    tidied(store, hours=hours)
    assert upkeep(record(), store).turn() is due


def test_it_is_not_looked_at_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    keeper = upkeep(record(), store)
    tidied(store, hours=1)
    assert not keeper.turn()
    tidied(store, hours=25)
    assert not keeper.turn()
    monkeypatch.setattr(sync.upkeep, "LOOK_EVERY_S", 0.0)
    assert keeper.turn()
    assert not keeper.turn()  # it is queued already


def test_whoever_wants_to_do_it_by_hand_may() -> None:
    by_hand = parse_config({"retention": {"automatic": False}}, "the test")
    assert not upkeep(record(by_hand), MemoryStore()).turn()


def test_how_long_things_are_kept_changes_no_run() -> None:
    other = parse_config({"retention": {"versions": 3}}, "the test")
    assert other.hash == ProjectConfig().hash
    assert replace(record(other)).config != ProjectConfig()
