"""`labelloop doctor` on a running stack: green where all is well, and it finds what somebody changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from labelloop.queue.heartbeat import alive
from labelloop.studio.client import Studio
from operations.doctor.diagnosis import AreaFinding, diagnose
from operations.doctor.finding import Level
from tests.acceptance.conftest import LABELLOOP, Loop, labelloop

SAMPLING = "Uncertainty sampling"


def troubles(loop: Loop) -> list[AreaFinding]:
    """What is not as it should be. This machine's disk, and code edited since the stack began, are not its fault."""
    found = [f for f in diagnose(loop.deployment) if f.finding.level is not Level.OK]
    return [f for f in found if f.area != "disk" and f.finding.what != "code"]


def what(found: list[AreaFinding], level: Level = Level.WRONG) -> set[str]:
    return {f.finding.what for f in found if f.finding.level is level}


def wait_until_well(loop: Loop, seconds: float) -> None:
    """What is loading or under way may take its time; what is left then is said."""
    end = time.monotonic() + seconds
    while found := troubles(loop):
        assert time.monotonic() < end, [f.to_json() for f in found]
        time.sleep(1)


unwell: list[str] = []  # what was found, while it lasts


@pytest.fixture
def well(loop: Loop) -> Iterator[Loop]:
    """A stack on which all is well, before the test and after it; one that stays unwell is waited for once."""
    try:
        wait_until_well(loop, 5 if unwell else 180)
        yield loop
        wait_until_well(loop, 5 if unwell else 90)
    except AssertionError as error:
        unwell.append(str(error))
        raise
    unwell.clear()


def test_all_is_green_on_a_fresh_stack(well: Loop) -> None:
    found = json.loads(labelloop("doctor", "--json", "--state-dir", well.home))
    assert len(found) > 50
    assert {f["level"] for f in found} <= {"ok", "warn"}
    areas = {f["area"] for f in found}
    assert {"settings", "Label Studio", "S3", "Redis", "ML backend", "processes", "clocks", "disk"} < areas
    assert "project digits" in areas


def test_another_sampling_and_a_second_webhook_are_found_with_exit_code_1(well: Loop) -> None:
    studio, project = well.studio, well.project.id
    body = {"project": project, "url": "http://127.0.0.1:9/elsewhere"}
    hook = studio.http.call("POST", "api/webhooks/", json=body)
    studio.update_project(project, sampling="Sequential sampling")
    try:
        done = subprocess.run(
            [LABELLOOP, "doctor", "--json", "--state-dir", well.home], capture_output=True, text=True, check=False
        )
    finally:
        studio.update_project(project, sampling=SAMPLING)
        studio.http.call("DELETE", f"api/webhooks/{hook['id']}/")
    assert done.returncode == 1, done.stderr
    found = {f["what"]: f for f in json.loads(done.stdout) if f["level"] != "ok"}
    assert found["queue order"]["level"] == "wrong"
    assert "Task Sampling" in found["queue order"]["remedy"]
    assert "127.0.0.1:9/elsewhere" in found["webhooks"]["found"]


@contextmanager
def nobody_watching(loop: Loop) -> Iterator[None]:
    """The watcher would set the version back within seconds."""
    (pid,) = [f["pid"] for n, f in alive(loop.deployment.queue.redis).items() if n.startswith("sync:")]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_model_version_that_was_taken_away_is_found(well: Loop) -> None:
    with nobody_watching(well):
        well.studio.update_project(well.project.id, model_version="")
        found = troubles(well)
    (finding,) = [f.finding for f in found if f.finding.what == "model version"]
    assert finding.level is Level.WRONG
    assert "random order" in finding.found


def test_a_dead_token_is_found_and_what_hangs_on_it_left_out(well: Loop) -> None:
    settings = replace(well.deployment.settings, studio_token="0" * 40)
    found = diagnose(replace(well.deployment, settings=settings))
    bad = [f for f in found if f.finding.level is Level.WRONG]
    assert what(bad) == {"the token"}
    assert "LABELLOOP_STUDIO_TOKEN" in bad[0].finding.remedy
    assert any("checks depend on what failed" in f.finding.found for f in found)


@pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated")  # the SDK, as it renews its access token
def test_a_legacy_token_that_was_switched_off_is_told_apart(well: Loop) -> None:
    token = well.studio.http.call("POST", "api/token/")["token"]
    owner = Studio(well.studio.url, token)
    kinds = {"api_tokens_enabled": True, "legacy_api_tokens_enabled": True}
    try:
        owner.http.call("POST", "api/jwt/settings", json={**kinds, "legacy_api_tokens_enabled": False})
        (finding,) = [f.finding for f in troubles(well) if f.finding.what == "the token"]
    finally:
        owner.http.call("POST", "api/jwt/settings", json=kinds)
        owner.close()
    assert "legacy" in finding.found
    assert "Organization > Access Token Settings" in finding.remedy


def test_keys_and_password_can_be_handed_over_again(well: Loop) -> None:
    printed = labelloop("rotate", "--state-dir", well.home)
    assert "S3 keys in Label Studio" in printed
    assert "backend password in Label Studio" in printed
