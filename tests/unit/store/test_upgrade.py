"""A bucket that the release before the rooms has written is used by this one, and its start alone runs nothing.

`bucket-before-rooms.zip` was written by that release: two projects with every kind of object, and what its backend
answered for the first image of each.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labelloop.objects.storage import MemoryStore
from operations.history.runs import list_runs
from tests.unit.worlds.damage import OTHER, VICTIM, Base, Loop, build, loop_of

BUCKET = Path(__file__).parents[1] / "formats" / "bucket-before-rooms.zip"
Start = Callable[[], Loop]


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    with zipfile.ZipFile(BUCKET) as archive:
        answers: dict[str, Any] = json.loads(archive.read("expected.json"))
    return answers


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Label Studio as it was then; the bucket of then."""
    now = build(tmp_path_factory.mktemp("now"))
    with zipfile.ZipFile(BUCKET) as archive:
        names = [name for name in archive.namelist() if name.startswith("objects/")]
        then = {name.removeprefix("objects/"): archive.read(name) for name in names}
    return replace(now, objects=then)


@pytest.fixture
def bucket(base: Base, tmp_path: Path) -> Iterator[tuple[MemoryStore, Start]]:
    with loop_of(base, tmp_path) as pair:
        yield pair


def test_the_same_answers_and_nothing_is_damaged(bucket: tuple[MemoryStore, Start], expected: dict[str, Any]) -> None:
    loop = bucket[1]()
    assert loop.ready()
    for number in (VICTIM, OTHER):
        now, then = loop.predict(number), expected["answers"][str(number)]
        assert [(r["model_version"], r["result"]) for r in now] == [(r["model_version"], r["result"]) for r in then]
        assert now[0]["score"] == pytest.approx(then[0]["score"], abs=1e-6)
    assert loop.told() == loop.diagnosed() == set()


def test_an_upgrade_starts_no_run(bucket: tuple[MemoryStore, Start], expected: dict[str, Any]) -> None:
    loop = bucket[1]()
    loop.settle(4)
    assert {str(n): loop.runs(n) for n in (VICTIM, OTHER)} == expected["runs"]
    assert not [e for e in loop.errors if "refresh" in e or "retrain" in e]


def test_new_labels_make_a_new_version_of_the_old_project(base: Base, bucket: tuple[MemoryStore, Start]) -> None:
    loop = bucket[1]()
    loop.settle(2)
    base.label(OTHER, 14)
    loop.settle(4)
    assert loop.runs(OTHER) == 2, loop.errors
    assert (
        len(list_runs(loop.deployment(), base.records[OTHER], kind=None, outcome=None, limit=9)) == 2
    )  # the old one is read, too


def test_a_project_that_names_a_removed_strategy_goes_on_with_auto_and_starts_no_run(
    base: Base, bucket: tuple[MemoryStore, Start], expected: dict[str, Any]
) -> None:
    key = f"index/{base.records[OTHER].key}.json"
    stored = json.loads(bucket[0].get(key))
    stored["config"]["queue"]["policy"] = "badge"
    bucket[0].put(key, json.dumps(stored).encode())
    loop = bucket[1]()
    assert loop.projects.get(base.records[OTHER].key).config.queue.policy == "auto"
    loop.settle(4)
    assert loop.runs(OTHER) == expected["runs"][str(OTHER)]
