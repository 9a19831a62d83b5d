"""A whole project read from Label Studio and written into it: every task, every answer, what it refuses left out."""

from __future__ import annotations

import json
from typing import Any

import pytest

import labelloop.studio.archive
from labelloop.errors import StudioError
from labelloop.labels.results import make_label_config, parse_label_config
from labelloop.records.json import canonical
from labelloop.studio.archive import REMOVE_TRIES, StudioArchive, task_line, task_of
from tests.fakes.studio_api import Json, StudioApi, studio_of

XML = make_label_config(["cat", "dog"])
SCHEMA = parse_label_config(XML)


@pytest.fixture
def api() -> StudioApi:
    return StudioApi(users={1: "owner@example.com", 2: "anna@example.com"})


@pytest.fixture
def archive(api: StudioApi) -> StudioArchive:
    return StudioArchive(studio_of(api))


def labelled(api: StudioApi, count: int) -> int:
    project = int(api.project("pets", XML)["id"])
    for i in range(count):
        task = api.task(project, {"image": f"s3://images/{i}.png"})
        for label in ("cat", "dog")[: i % 3]:
            api.annotate(task, result=SCHEMA.result(label), completed_by=2, lead_time=float(i))
    return project


def test_pages_go_by_number_and_nothing_is_left_out(
    api: StudioApi, archive: StudioArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelloop.studio.archive, "PAGE", 3)
    monkeypatch.setattr(labelloop.studio.pieces, "CHUNK", 2)
    project = labelled(api, 8)
    labelled(api, 2)  # another project's
    pages = list(archive.tasks(project))
    assert [len(page) for page in pages] == [3, 3, 2]
    tasks = [task for page in pages for task in page]
    assert [t.uri(SCHEMA) for t in tasks] == [f"s3://images/{i}.png" for i in range(8)]
    assert [len(t.annotations) for t in tasks] == [0, 1, 2, 0, 1, 2, 0, 1]  # although Label Studio counts none
    assert {a.by for t in tasks for a in t.annotations} == {"anna@example.com"}


def test_a_task_is_the_same_after_its_way_through_a_file(api: StudioApi, archive: StudioArchive) -> None:
    project = labelled(api, 3)
    for page in archive.tasks(project):
        for task in page:
            assert task_of(json.loads(canonical(task_line(task)))) == task


def test_what_was_shown_comes_along_without_what_changes_daily(api: StudioApi, archive: StudioArchive) -> None:
    project = labelled(api, 0)
    task = api.task(project, {"image": "s3://images/1.png"})
    shown = {"model_version": "v3", "result": SCHEMA.result("cat"), "score": 0.5, "created_ago": "a minute"}
    api.annotate(task, result=[], prediction=shown)
    api.annotate(task, result=[], prediction={})
    (page,) = archive.tasks(project)
    first, second = page[0].annotations
    assert first.seen == {"model_version": "v3", "result": SCHEMA.result("cat"), "score": 0.5}
    assert second.seen is None


def test_settings_come_along(api: StudioApi, archive: StudioArchive) -> None:
    project = int(api.project("pets", XML, expert_instruction="look twice", maximum_annotations=3, secret="x")["id"])
    settings = archive.settings(project)
    assert settings["expert_instruction"] == "look twice"
    assert "secret" not in settings
    copy = archive.create("again", XML, {**settings, "is_published": True, "title": "no"})
    assert api.projects[copy.id]["maximum_annotations"] == 3
    assert api.projects[copy.id]["title"] == "again"
    assert "is_published" not in api.projects[copy.id]


class Picky(StudioApi):
    """An older server, which does not know one of the settings."""

    def call(self, method: str, path: str, **more: Any) -> Any:
        if method == "PATCH" and "skip_queue" in (more.get("json") or {}):
            raise StudioError("unknown field", status=400)
        return super().call(method, path, **more)


def test_a_setting_that_the_server_does_not_know_stops_nothing() -> None:
    api = Picky()
    copy = StudioArchive(studio_of(api)).create("again", XML, {"skip_queue": "x", "maximum_annotations": 2})
    assert api.projects[copy.id]["maximum_annotations"] == 2


class Full(StudioApi):
    def call(self, method: str, path: str, **more: Any) -> Any:
        answer: Json = super().call(method, path, **more)
        return {"task_count": 0} if path.endswith("/import") else answer


def test_tasks_that_were_not_taken_are_noticed() -> None:
    api = Full()
    archive = StudioArchive(studio_of(api))
    project = labelled(api, 2)
    (page,) = archive.tasks(project)
    with pytest.raises(StudioError, match="took 0 of 2 tasks"):
        archive.add(project, page)


class Busy(StudioApi):
    """Predictions arrive while it deletes, so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def call(self, method: str, path: str, **more: Any) -> Any:
        if method == "DELETE" and self.times:
            self.times -= 1
            raise StudioError("FOREIGN KEY constraint failed", status=500)
        return super().call(method, path, **more)


@pytest.mark.parametrize("times", [1, REMOVE_TRIES])
def test_a_project_into_which_something_is_pushed_meanwhile_is_removed_later(
    monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    monkeypatch.setattr("labelloop.studio.archive.REMOVE_PAUSE_S", 0.0)
    api = Busy(times)
    project = labelled(api, 2)
    if times < REMOVE_TRIES:
        StudioArchive(studio_of(api)).remove(project)
        assert not api.projects
    else:
        with pytest.raises(StudioError, match="FOREIGN KEY"):
            StudioArchive(studio_of(api)).remove(project)
