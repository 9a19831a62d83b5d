"""A project in a file, and out of it again as a second project that answers alike."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from labelloop.store.projects import ProjectRecord
from labelloop.studio.archive import StudioArchive
from tests.acceptance.conftest import Loop, labelloop, until


def answers(loop: Loop, project: ProjectRecord) -> dict[str, list[Any]]:
    """Image -> what people said of it, oldest first. Label Studio's counters may be wrong: every task is looked at."""
    stubs = {stub.id: stub for page in loop.studio.all_tasks(project.id, loop.schema) for stub in page}
    tasks = loop.studio.tasks(project.id, loop.schema, [i for i, stub in stubs.items() if stub.annotations])
    return {
        task.uri: [
            (a.label, a.cancelled, a.ground_truth, a.lead_time_s, a.completed_by, a.seed)
            for a in sorted(task.annotations, key=lambda a: (a.updated_at, a.id))
        ]
        for task in tasks
    }


def predictions(loop: Loop, project: ProjectRecord, uris: Sequence[str]) -> list[dict[str, Any]]:
    """As Label Studio asks the backend."""
    settings = loop.deployment.settings
    tasks = [{"id": i, "data": {"image": uri}} for i, uri in enumerate(uris)]
    body = {"tasks": tasks, "project": project.reference, "label_config": project.label_config}
    auth = (settings.backend_user, settings.backend_password or "")
    answer = httpx.post(f"{settings.backend_url}/predict", json=body, auth=auth, timeout=100)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


@contextmanager
def restored(loop: Loop, path: Path, title: str) -> Iterator[ProjectRecord]:
    printed = labelloop("restore", path, "--title", title, "--json", "--state-dir", loop.home)
    made = loop.deployment.projects.get(json.loads(printed.splitlines()[-1])["key"])
    try:
        yield made
    finally:
        loop.deployment.projects.remove(made.key)
        StudioArchive(loop.studio).remove(made.id)
        store = loop.deployment.within(made)
        for info in list(store.list("")):
            store.delete(info.key)


@pytest.mark.long(seconds=150)
def test_a_backup_becomes_a_second_project_that_answers_alike(loop: Loop, tmp_path: Path) -> None:
    task = loop.studio.next_task(loop.project.id, loop.schema)
    assert task is not None
    loop.studio.annotate(task.id, [], lead_time_s=1.5, skip=True)
    labelloop("sync", "--drain", "--project", "digits", "--state-dir", loop.home)
    path = tmp_path / "digits.tar"
    printed = labelloop("backup", "--project", "digits", "--out", path, "--json", "--state-dir", loop.home)
    live = json.loads(printed.splitlines()[-1])["live"]
    assert live == loop.live()
    uris = sorted({stub.uri for page in loop.studio.all_tasks(loop.project.id, loop.schema) for stub in page})[:20]
    before = predictions(loop, loop.project, uris)
    assert len({json.dumps(p["result"]) for p in before}) > 3, "a model that tells images apart"

    with restored(loop, path, "digits again") as again:
        assert again.id != loop.project.id
        assert answers(loop, again) == answers(loop, loop.project)
        until(lambda: predictions(loop, again, uris[:1])[0].get("model_version") == live, what="the champion to serve")
        after = predictions(loop, again, uris)
        assert [p["model_version"] for p in after] == [p["model_version"] for p in before] == [live] * len(uris)
        assert [p["result"] for p in after] == [p["result"] for p in before]
        until(lambda: loop.studio.project(again.id).model_version == live, 60, "the order of the queue")
        entry = loop.deployment.registry(again).live()
        assert entry
        assert entry.version == live, "nothing was learned anew from the same labels"
        labelloop("restore", path, "--state-dir", loop.home)  # into the very project: nothing is missing
    assert [r.title for r in loop.deployment.projects.all()] == ["digits"]


def test_gc_tells_what_it_would_do_and_leaves_what_is_young(loop: Loop) -> None:
    before = {info.key for info in loop.deployment.within(loop.project).list("")}
    (found,) = json.loads(labelloop("gc", "--dry-run", "--json", "--project", "digits", "--state-dir", loop.home))
    assert found["removed"] == []
    assert {heap["what"] for heap in found["kept"]} >= {"model version", "head", "snapshot", "feature rows"}
    labelloop("gc", "--project", "digits", "--state-dir", loop.home)
    after = {info.key for info in loop.deployment.within(loop.project).list("")}
    assert before <= after
    assert "gc.json" in after
