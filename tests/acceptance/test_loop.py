"""The loop as its users meet it: pre-labelled pages, a model that learns, a status that explains."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest

from labelloop.records.images import Split
from sync.predictions.publish import IDLE_S
from tests.acceptance.conftest import PER_CLASS, Loop, labelloop, until


def test_the_first_page_is_pre_labelled_by_a_model_of_the_seeds(loop: Loop) -> None:
    assert loop.live() is not None
    until(lambda: loop.studio.project(loop.project.id).model_version == loop.live(), what="the switch")
    shown = {d.version for d in loop.deployment.registry(loop.project).deployments()}
    seen = []
    for _ in range(4):  # every tenth place is blind, and of the others one in twenty by chance
        task = loop.studio.next_task(loop.project.id, loop.schema)
        assert task is not None
        seen.append(task.prediction)
        loop.answer(task)
    assert any(s and s.label in loop.schema.classes and s.version in shown for s in seen)


def test_ten_submits_bring_a_new_version_and_a_new_front(loop: Loop) -> None:
    before = loop.live()
    loop.submit(11)
    until(lambda: loop.live() != before, what="a new version")
    until(lambda: loop.studio.project(loop.project.id).model_version == loop.live(), what="the switch")
    task = loop.studio.next_task(loop.project.id, loop.schema)
    assert task is not None
    assert task.prediction is not None
    assert task.prediction.version == loop.live()


def test_status_tells_what_is_live_why_and_what_comes_next(loop: Loop) -> None:
    until(lambda: set(loop.picture().serving.values()) == {loop.live()}, what="a backend that serves the live version")
    status = loop.status()
    assert status["version"] == loop.live()
    assert set(status["serving"].values()) == {loop.live()}
    assert status["evidence"]
    assert all(service["ok"] for service in status["all"]["services"])
    assert 0 <= status["until_refresh"] <= 10
    assert status["runs"][-1]["reasons"]
    assert status["pool"]["featurised"] == 10 * PER_CLASS
    assert "digits" in labelloop("status", "--once", "--state-dir", loop.home)


def test_quota_tasks_come_from_test_and_audit_and_are_blind(loop: Loop) -> None:
    scores = list(loop.deployment.within(loop.project).list("scores/"))
    newest = json.loads(loop.deployment.within(loop.project).get(max(scores, key=lambda o: o.modified).key))
    catalogue = {}
    for info in loop.deployment.within(loop.project).list("catalogue/"):
        for line in loop.deployment.within(loop.project).get(info.key).splitlines():
            facts = json.loads(line)
            catalogue[facts["uri"]] = facts["bucket"]
    places = newest["places"][:100]
    drawn = [p for p in places if p["why"] == "quota"]
    assert 5 <= len(drawn) <= 25  # a quarter at most, as long as the next retrain lacks test labels
    assert all(p["blind"] for p in drawn)
    assert {catalogue[p["uri"]] for p in drawn} <= {Split.TEST, Split.AUDIT}
    assert {catalogue[p["uri"]] for p in places if p["why"] != "quota"} == {Split.TRAIN}
    assert sum(p["blind"] for p in places) - len(drawn) < 20  # one in twenty, by chance


def test_three_annotators_with_second_thoughts_lose_nothing_and_get_no_task_twice(loop: Loop) -> None:
    printed = labelloop(
        "simulate", "--labels", "30", "--people", "3", "--skip-rate", "0.1", "--change-rate", "0.1",
        "--delete-rate", "0.1", "--yes", "--state-dir", loop.home,
    )  # fmt: skip
    figures = json.loads(printed.splitlines()[-1])
    assert figures["lost"] == 0
    assert figures["labelled_twice"] == 0
    assert figures["annotations_in_snapshot"] == figures["annotations_in_label_studio"] >= 70
    assert figures["versions"] >= 3
    assert figures["test_accuracy"] > 0.7


def test_rollback_and_promote_are_deploys(loop: Loop) -> None:
    before = loop.live()
    labelloop("rollback", "--project", "digits", "--why", "try", "--state-dir", loop.home)
    after = loop.live()
    assert after != before
    until(lambda: set(loop.picture().serving.values()) == {after}, what="the backend's way back")
    assert before is not None
    labelloop("promote", before, "--project", "digits", "--state-dir", loop.home)
    until(lambda: set(loop.picture().serving.values()) == {before}, what="the backend's way forth")


def test_a_corrupted_version_never_serves_and_status_says_why(loop: Loop) -> None:
    good = loop.live()
    store, registry = loop.deployment.within(loop.project), loop.deployment.registry(loop.project)
    bad = next(v for v in registry.versions() if v.name != good)
    intact = store.get(bad.head_key)
    store.put(bad.head_key, intact[:-1] + bytes([intact[-1] ^ 1]))
    with pytest.raises(AssertionError, match="hash"):
        labelloop("promote", bad.name, "--project", "digits", "--state-dir", loop.home)
    registry.deploy(bad.name, expected=good, action="promote", by="test", why="past the command line")
    until(lambda: any(bad.name in why and "hash" in why for why in loop.picture().refused), what="the refusal")
    assert set(loop.picture().serving.values()) == {good}
    labelloop("rollback", "--project", "digits", "--state-dir", loop.home)
    assert loop.live() == good
    store.put(bad.head_key, intact)


def test_a_drain_equals_label_studio(loop: Loop) -> None:
    printed = labelloop("sync", "--drain", "--project", "digits", "--state-dir", loop.home)
    exported = sum(len(row["annotations"]) for row in loop.studio.export(loop.project.id))
    assert f"{exported} annotations" in printed


def test_a_deleted_task_leaves_the_snapshot(loop: Loop) -> None:
    task = loop.studio.export(loop.project.id)[0]["id"]
    loop.studio.delete_task(task)
    labelloop("sync", "--drain", "--project", "digits", "--state-dir", loop.home)
    exported = {row["id"] for row in loop.studio.export(loop.project.id)}
    assert task not in exported
    assert loop.picture().annotations == sum(len(row["annotations"]) for row in loop.studio.export(loop.project.id))


def test_a_second_start_finds_everything_as_it_was_left(loop: Loop) -> None:
    before, annotations = loop.live(), loop.picture().annotations
    assert before is not None
    shown = pre_labelled(loop, before)
    labelloop("down", "--state-dir", loop.home)
    labelloop("up", "--detach", "--state-dir", loop.home)
    until(lambda: loop.picture().annotations == annotations, what="the snapshot")
    assert loop.live() == before
    assert len([r for r in loop.deployment.projects.all() if r.title == "digits"]) == 1
    time.sleep(2 * IDLE_S)  # in idle time the rest of a window follows; what is there already must not come again
    after = pre_labelled(loop, before)
    assert shown.keys() <= after.keys()
    assert set(after.values()) == {1}


def pre_labelled(loop: Loop, version: str) -> Counter[int]:
    """Predictions of a version that Label Studio keeps, by task."""
    query = {"project": loop.project.id, "fields": "all", "page_size": 2000}
    rows = loop.studio.http.call("GET", "api/tasks/", params=query)["tasks"]
    return Counter(row["id"] for row in rows for shown in row["predictions"] if shown["model_version"] == version)
