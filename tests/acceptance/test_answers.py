"""Answers that nobody can read and configs that nobody can serve, in the running loop: told, and they stop nobody."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.conftest import LABELLOOP, Loop, labelloop, send, until

VALUES: tuple[Any, ...] = (
    {"choices": None}, {"choices": [1]}, {"choices": ["0", "1"]}, {"choices": []}, None, {"choices": ["\ud800"]},
)  # fmt: skip


@pytest.fixture
def tasks(loop: Loop) -> Iterator[list[int]]:
    """Tasks of images that other tasks show already; gone afterwards."""
    stub = next(s for page in loop.studio.all_tasks(loop.project.id, loop.schema) for s in page)
    rows = [{"data": {loop.schema.data_key: stub.uri}} for _ in range(len(VALUES) + 1)]
    path = f"api/projects/{loop.project.id}/import"
    made = loop.studio.http.call("POST", path, params={"return_task_ids": "true"}, json=rows)["task_ids"]
    yield made
    for task in made:
        loop.studio.delete_task(task)


def test_answers_that_cannot_be_read_stop_nobody_and_are_told(loop: Loop, tasks: list[int]) -> None:
    token = loop.deployment.settings.require_studio_token()
    before = loop.picture().unread
    for task, value in zip(tasks, VALUES, strict=False):
        body = {"result": [{**loop.schema.result("0")[0], "value": value}]}
        send(loop.studio.url, token, "POST", f"api/tasks/{task}/annotations/", body)
    until(lambda: loop.picture().unread == before + len(VALUES), what="the count of what cannot be read")
    frozen = loop.picture().annotations
    loop.studio.annotate(tasks[-1], loop.schema.result("0"))
    until(lambda: loop.picture().annotations > frozen, what="the label after it")
    assert loop.picture().problem is None
    assert "error" not in labelloop("sync", "--drain", "--project", "digits", "--state-dir", loop.home)
    told = loop.status()
    links = {link for row in told["uncounted"] for link in row["links"]}
    assert {f"{loop.studio.url}/projects/{loop.project.id}/data?task={task}" for task in tasks[:-1]} <= links
    assert "not counted" in labelloop("status", "--once", "--state-dir", loop.home)


def test_a_config_that_cannot_be_served_is_refused_while_the_rest_goes_on(loop: Loop) -> None:
    good = loop.project.label_config
    try:
        loop.studio.update_project(
            loop.project.id, label_config=good.replace("<Choices ", '<Choices perRegion="true" ')
        )
        until(lambda: "perRegion" in (loop.picture().problem or ""), what="the words in the panel")
        assert loop.project.label_config == good
        frozen = loop.picture().annotations
        loop.submit(1)
        until(lambda: loop.picture().annotations > frozen, what="the label under the config before")
        done = subprocess.run([LABELLOOP, "doctor", "--json", "--state-dir", loop.home], capture_output=True, text=True,
                              check=False)  # fmt: skip
        (finding,) = [f for f in json.loads(done.stdout) if f["what"] == "label config"]
        assert (finding["level"], "perRegion" in finding["found"]) == ("wrong", True)
    finally:
        loop.studio.update_project(loop.project.id, label_config=good)
    until(lambda: loop.picture().problem is None, what="the end of the problem")
