"""The labelled images that are most like one: right, of the train split alone, and as new as ten seconds."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelloop.clock import now
from labelloop.records.images import ImageFacts, Split
from labelloop.records.snapshots import Latest
from labelloop.records.tasks import Annotation, Task
from labelloop.rules.split import shown_blind
from labelloop.store.catalogue import Catalogue
from labelloop.store.features import FeatureStore
from labelloop.store.snapshots import SnapshotStore
from ml_backend.classify import neighbours
from ml_backend.classify.neighbours import Neighbours
from tests.unit.worlds.api import ApiWorld, api_world
from tests.unit.worlds.backend import PREFIX, World, picture

LABELS = ("cat", "dog", "fox", None, "cat", "dog")  # of picture 0, 1, …; 4 judges, 5 has no features
GROUPS = [name for n in range(100) if not shown_blind(name := f"{n:064x}", 0.05)][:6]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiWorld]:
    world = World()
    world.deploy(world.add(world.backbone(), 1))
    with api_world(world) as made:
        labelled(made, tmp_path, LABELS, 1)
        classifier = made.backend.classifier
        assert classifier
        object.__setattr__(classifier, "neighbours", Neighbours(world.store, tmp_path / "cache", 10**9))
        yield made


def uri(number: int) -> str:
    return f"{PREFIX}{number}.png"


def labelled(api: ApiWorld, tmp_path: Path, labels: tuple[str | None, ...], sequence: int) -> None:
    """A snapshot, and what is known of its images."""
    own = api.world.own
    facts = [ImageFacts(uri(n), "e", GROUPS[n], GROUPS[n], Split.TEST if n == 4 else Split.TRAIN) for n in range(6)]
    Catalogue(own).add(facts, str(sequence))
    engine = live(api).model.engine
    rows = engine.features(np.stack([engine.decode(picture(n)) for n in range(5)]))
    FeatureStore(own, engine.id, tmp_path / "made").add(str(sequence), [uri(n) for n in range(5)], ["e"] * 5, rows)
    tasks = [Task(n, uri(n), now(), (Annotation(n, now(), now(), label),)) for n, label in enumerate(labels)]
    snapshots = SnapshotStore(own)
    snapshots.set_latest(Latest(snapshots.freeze(tasks).id, sequence, "c", now(), len(tasks)))


def live(api: ApiWorld) -> Any:
    return api.backend.live.get(api.world.record)


def ask(api: ApiWorld, *numbers: int, count: int = 2) -> list[Any]:
    images = [{"base64": base64.b64encode(picture(n)).decode()} for n in numbers]
    answer = api.classify(json={"images": images, "neighbours": count})
    assert answer.status_code == 200, answer.text
    return [image["neighbours"] for image in answer.get_json()["images"]]


def test_the_same_picture_is_the_nearest_with_its_label(api: ApiWorld) -> None:
    for number, near in zip((0, 1, 2), ask(api, 0, 1, 2), strict=True):
        assert (near[0]["uri"], near[0]["label"]) == (uri(number), LABELS[number])
        assert near[0]["likeness"] == pytest.approx(1, abs=1e-3)
        assert near[1]["likeness"] < near[0]["likeness"]
        assert len(near) == 2


def test_what_judges_is_unlabelled_or_has_no_features_is_left_out(api: ApiWorld) -> None:
    (near,) = ask(api, 4, count=20)
    assert {n["uri"] for n in near} == {uri(0), uri(1), uri(2)}


def test_a_new_label_counts_after_a_while(api: ApiWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(api, 3)[0][0]["uri"] != uri(3)
    labelled(api, tmp_path, (*LABELS[:3], "fox", *LABELS[4:]), 2)
    assert ask(api, 3)[0][0]["uri"] != uri(3)  # read a moment ago
    monkeypatch.setattr(neighbours, "EVERY_S", 0.0)
    assert (ask(api, 3)[0][0]["uri"], ask(api, 3)[0][0]["label"]) == (uri(3), "fox")


def test_nobody_asked_nothing_is_read(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Neighbours, "of", lambda *_: pytest.fail("it was read"))
    body = {"images": [{"base64": base64.b64encode(picture(1)).decode()}]}
    assert api.classify(json=body).get_json()["images"][0]["neighbours"] is None
    assert api.classify(json={**body, "neighbours": 21}).status_code == 422


def test_a_project_without_labels_has_no_neighbours(tmp_path: Path) -> None:
    world = World()
    world.deploy(world.add(world.backbone(), 1))
    with api_world(world) as api:
        assert api.backend.classifier
        object.__setattr__(api.backend.classifier, "neighbours", Neighbours(world.store, tmp_path, 10**9))
        assert ask(api, 1) == [[]]


def test_few_projects_stay_in_memory(api: ApiWorld) -> None:
    classifier = api.backend.classifier
    assert classifier
    assert classifier.neighbours
    ask(api, 0)
    for number in range(5):
        record = replace(api.world.record, id=100 + number)
        assert classifier.neighbours.of(record, live(api), "b").uris == ()
    assert len(classifier.neighbours._kept) == neighbours.KEPT
