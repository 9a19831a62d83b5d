"""A person at a terminal: Ctrl-C says what goes on, nobody's images are added to unasked, names cannot steer it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.commands.simulate import _agree
from cli.connect import open_deployment
from labelloop.errors import SettingsError
from labelloop.queue.jobs import LR_FIND
from tests.edges.ask import ask
from tests.edges.cases import Case
from tests.edges.world import Place, place


@pytest.fixture(scope="module")
def here(valkey_url: str, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("terminal"), valkey_url, s3_endpoint) as found:
        yield found


def test_ctrl_c_says_that_the_job_is_queued_and_how_it_is_cancelled(here: Place) -> None:
    env = {**os.environ, **here.env, "PYTHONPATH": str(Path.cwd()), "COLUMNS": "200"}
    command = [sys.executable, "-m", "cli.main", "lr-find"]
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (jobs := here.deployment.queue.active(LR_FIND, here.record.key)) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in told
    assert "continues in the background" in told
    assert f"labelloop queue cancel {jobs[0]}" in told
    assert "stops at its next step" in ask(here, Case(f"queue cancel {jobs[0]}", ())).text


def test_a_retrain_that_nobody_has_queued_can_be_withdrawn(here: Place) -> None:
    assert "requested; progress" in ask(here, Case("retrain", ())).text
    assert "the retrain that" in ask(here, Case("queue cancel retrain", ())).text
    assert ask(here, Case("queue cancel retrain", ())).code == 1


def test_simulate_does_not_add_images_to_a_stack_with_projects_unasked(here: Place) -> None:
    with pytest.raises(SettingsError, match=r"holds pets \[red\]x\[/\].*500 images.*--yes"):
        _agree(here.deployment, 500, yes=False)
    _agree(here.deployment, 500, yes=True)


LOOKS = ("status --once", "models", "models --log", "runs", "run show latest", "card", "snapshots", "duplicates",
         "schema", "value", "queue", "models --project 1")  # fmt: skip


@pytest.mark.parametrize("line", LOOKS)
def test_a_title_is_text_whatever_it_holds(here: Place, line: str) -> None:
    answer = ask(here, Case(line, ()))
    assert answer.code == 0, answer.text
    assert "\x1b" not in answer.text


def test_a_project_is_found_by_its_new_name_and_by_no_name_once_it_is_deleted(here: Place) -> None:
    project = here.api.projects[here.record.id]
    before = project["title"]
    project["title"] = "cats and dogs"
    try:
        assert ask(here, Case("models --project 'cats and dogs'", ())).code == 0
        assert ask(here, Case("models --project 'cats'", ())).code == 1
    finally:
        project["title"] = before
    del here.api.projects[here.record.id]
    try:
        answer = ask(here, Case("schema", ()))
        assert f"labelloop forget {here.record.id}" in answer.text
        assert "{" not in answer.text
    finally:
        here.api.projects[here.record.id] = project


def test_forgetting_tells_what_is_no_longer_looked_after(here: Place) -> None:
    assert "is not managed any longer" in ask(here, Case(f"forget {here.record.key}", ())).text
    open_deployment(here.folder / "none").projects.put(here.record)
