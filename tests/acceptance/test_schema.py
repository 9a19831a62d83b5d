"""A class renamed in Label Studio: nothing is lost, a person decides, the loop goes on under the new name."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from labelloop.store.snapshots import SnapshotStore
from tests.acceptance.conftest import LABELLOOP, Loop, labelloop, until

OLD, NEW = "7", "seven"


@pytest.fixture
def original(loop: Loop) -> Iterator[str]:
    """The label config as it was; whatever a test does, it is so again afterwards, and nothing is left to decide."""
    config = loop.studio.project(loop.project.id).label_config
    before = loop.live()
    yield config
    loop.studio.update_project(loop.project.id, label_config=config)
    until(lambda: loop.project.label_config == config, what="the old label config")
    if loop.project.config.label_map:
        labelloop("schema", "--keep", OLD, "--yes", "--project", "digits", "--state-dir", loop.home)
        until(lambda: loop.live() != before and NEW not in head_labels(loop), what="a model of the old classes")


def head_labels(loop: Loop) -> tuple[str, ...]:
    registry = loop.deployment.registry(loop.project)
    return registry.version(loop.live() or "").labels


def schema(loop: Loop, *options: str) -> dict[str, Any]:
    printed = labelloop("schema", *options, "--json", "--project", "digits", "--state-dir", loop.home)
    found: dict[str, Any] = json.loads(printed)
    return found


def predict(loop: Loop, uris: list[str]) -> list[str | None]:
    record, settings = loop.project, loop.deployment.settings
    config = loop.studio.project(record.id).label_config
    body = {"project": record.reference, "label_config": config,
            "tasks": [{"id": i, "data": {"image": uri}} for i, uri in enumerate(uris)]}  # fmt: skip
    auth = (settings.backend_user, settings.backend_password or "")
    answer = httpx.post(f"{settings.backend_url}/predict", json=body, auth=auth, timeout=100).raise_for_status()
    return [record.schema.read(r["result"])[0] for r in answer.json()["results"]]


def labels_of(loop: Loop, label: str) -> list[str]:
    store = SnapshotStore(loop.deployment.within(loop.project))
    latest = store.latest()
    assert latest is not None
    return [uri for uri, given in store.load(latest.snapshot).labels().items() if given == label]


@pytest.mark.long(seconds=150)
def test_a_renamed_class_waits_for_a_person_and_then_goes_on(loop: Loop, original: str) -> None:
    sevens = labels_of(loop, OLD)
    before = loop.live()
    assert len(sevens) >= 3
    assert OLD in head_labels(loop)

    loop.studio.update_project(loop.project.id, label_config=original.replace(f'value="{OLD}"', f'value="{NEW}"'))
    until(lambda: NEW in loop.project.schema.classes, what="the new label config")
    until(lambda: f"class '{OLD}' ({len(sevens)} labels)" in (loop.picture().waiting or ""), what="the question")
    assert loop.live() == before
    answers = predict(loop, sevens)
    assert OLD not in answers  # Label Studio does not know it any more
    until(lambda: loop.studio.project(loop.project.id).model_version == before, what="the pushed window")

    found = schema(loop)
    assert found["undecided"] == {OLD: len(sevens)}
    assert [(p["kind"], p["old"], p["new"]) for p in found["proposals"]] == [("rename", OLD, NEW)]
    effect = schema(loop, "--map", f"{OLD}={NEW}", "--dry-run")
    assert sum(effect["after"][NEW].values()) >= len(sevens)
    assert OLD not in effect["after"]
    assert loop.project.config.label_map == {}

    labelloop("schema", "--map", f"{OLD}={NEW}", "--yes", "--project", "digits", "--state-dir", loop.home)
    until(lambda: loop.live() != before, what="a version that speaks of the new class")
    assert NEW in head_labels(loop)
    assert OLD not in head_labels(loop)
    until(lambda: set(loop.picture().serving.values()) == {loop.live()}, what="the backend")
    assert predict(loop, sevens).count(NEW) >= len(sevens) // 2
    assert loop.picture().waiting is None
    assert labels_of(loop, OLD) == sevens  # the snapshot is what Label Studio says


def test_what_cannot_be_decided_is_refused_in_words(loop: Loop) -> None:
    done = subprocess.run(
        [LABELLOOP, "schema", "--map", "7=eight", "--project", "digits", "--state-dir", loop.home],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "'7' cannot become 'eight'" in done.stderr
