"""What `labelloop schema` shows of classes, and what a decision writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from cli.commands.schema import _pairs
from labelloop.config.project import ProjectConfig
from labelloop.errors import SettingsError
from labelloop.labels.results import make_label_config
from labelloop.objects.storage import MemoryStore
from labelloop.records.images import ImageFacts, Split
from labelloop.records.snapshots import Latest
from labelloop.records.tasks import Annotation, Task
from labelloop.rules.migration import Wishes
from labelloop.store.catalogue import Catalogue
from labelloop.store.projects import ProjectRecord, ProjectStore, project_store
from labelloop.store.registry import Registry
from labelloop.store.snapshots import SnapshotStore
from operations.projects.schema import SchemaReader, write

GIVEN = {"1": ("cat", Split.TRAIN), "2": ("cat", Split.TEST), "3": ("dog", Split.TRAIN), "4": ("cat", None)}


class World:
    """A deployment whose Label Studio offers other classes than were given."""

    def __init__(self, *classes: str) -> None:
        self.classes = classes
        self.store, self.published, self.deleted = MemoryStore(), [], []  # type: ignore[var-annotated]
        self.record = ProjectRecord("main", 1, 2, "t", ProjectConfig(), make_label_config(("cat", "dog")), "s3://i/t/")
        self.projects = ProjectStore(self.store, "main")
        self.projects.put(self.record)
        own = project_store(self.store, self.record.key)
        Catalogue(own).add([ImageFacts(u, "e", u, u, b) for u, (_, b) in GIVEN.items() if b], "s")
        tasks = [Task(int(u), u, "t", (Annotation(int(u), "t", "t", c),)) for u, (c, _) in GIVEN.items()]
        snapshots = SnapshotStore(own)
        snapshots.set_latest(Latest(snapshots.freeze(tasks).id, 1, "", "t", 4))
        self.queue = SimpleNamespace(redis=SimpleNamespace(publish=lambda *a: self.published.append(a)))
        self.studio = SimpleNamespace(
            project=lambda _id: SimpleNamespace(label_config=make_label_config(self.classes)),
            delete_predictions=lambda *a: self.deleted.append(a),
        )

    def within(self, record: ProjectRecord) -> Any:
        return project_store(self.store, record.key)

    def registry(self, record: ProjectRecord) -> Registry:
        return Registry(self.within(record), lease)

    @property
    def reader(self) -> SchemaReader:
        return SchemaReader(self, self.projects.get(self.record.key))  # type: ignore[arg-type]


@contextmanager
def lease(_name: str) -> Iterator[int]:
    yield 1


def test_classes_are_shown_with_what_they_have_and_what_is_likely_meant() -> None:
    view = World("feline", "dog").reader.view()
    assert view.undecided == {"cat": 3}
    assert {r.name: (r.offered, dict(r.labels)) for r in view.rows} == {
        "feline": (True, {}), "dog": (True, {"train": 1}), "cat": (False, {"train": 1, "test": 1, "unknown": 1}),
    }  # fmt: skip
    assert [p.option for p in view.proposals] == ["--map cat=feline"]
    assert json.loads(json.dumps(view.to_json()))["rows"][2]["labels"] == {"train": 1, "test": 1, "unknown": 1}


def test_a_decision_shows_its_effect_and_is_kept_with_the_config() -> None:
    world = World("feline", "dog")
    effect = world.reader.effect(Wishes({"cat": "feline"}))
    assert effect.before["cat"] == effect.after["feline"] == {"train": 1, "test": 1, "unknown": 1}
    assert effect.undecided == {}
    changed = write(world, world.record, effect.label_map)  # type: ignore[arg-type]
    assert world.projects.get(world.record.key) == changed
    assert changed.config.label_map == {"cat": "feline"}
    assert changed.config.hash != world.record.config.hash
    assert len(world.published) == 1
    view = world.reader.view()
    assert view.undecided == {}
    assert {r.name: r.state for r in view.rows} == {
        "feline": "with the labels of cat",
        "dog": "",
        "cat": "counts as feline",
    }


def test_a_decision_keeps_a_label_config_that_was_followed_meanwhile() -> None:
    world = World("feline", "dog")
    followed = ProjectRecord("main", 1, 2, "t", ProjectConfig(), make_label_config(("feline", "dog")), "s3://i/t/")
    world.projects.put(followed)
    assert write(world, world.record, {"cat": None}).label_config == followed.label_config  # type: ignore[arg-type]


def test_a_drop_can_be_taken_back_when_the_class_is_offered_again() -> None:
    world = World("feline", "dog")
    write(world, world.record, world.reader.effect(Wishes(drops=("cat",))).label_map)  # type: ignore[arg-type]
    assert world.reader.view().undecided == {}
    world.classes = ("cat", "dog")
    states = {r.name: r.state for r in world.reader.view().rows}
    assert states["cat"] == "dropped: offered again, take it back with --keep"
    assert world.reader.effect(Wishes(keeps=("cat",))).label_map == {}


@pytest.mark.parametrize("words", [["cat"], ["cat="], ["=cat"], ["a=b", "a=c"]])
def test_maps_that_are_none_are_refused(words: list[str]) -> None:
    with pytest.raises(SettingsError):
        _pairs(words)
