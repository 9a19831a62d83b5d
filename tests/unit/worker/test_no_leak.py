"""What judges never trains, whatever grows; and what serves says what was judged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelloop.records.evidence import Outcome
from labelloop.records.images import Example, Split
from labelloop.records.json import digest
from labelloop.rules.split import fold_of
from ml_backend.loader import Engines, load_model
from retrain_worker.training.fit import FineTune
from retrain_worker.training.parts import divide
from tests.unit.worlds.learning import LearningWorld

SMALL = {
    "backbone": {"name": "small_cnn", "image_size": 16, "options": {"filters": [8], "dense": 16, "dropout": 0.0}},
    "retrain": {"epochs": 2, "learning_rate": 0.01, "backbone_rate": 1.0, "augment": "none"},
}


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LearningWorld, list[Any], str]]:
    """A retrain on a snapshot in which every image of every bucket is labelled; all pixels that its batches held."""
    folder: Path = tmp_path_factory.mktemp("world")
    world, batches = LearningWorld(folder, images=300, config=SMALL), []
    snapshot = world.label(sorted(world.truth))
    assert world.refresh(snapshot).verdict.outcome is Outcome.PROMOTE
    step = FineTune._step

    def noted(run: FineTune, module: Any, batch: Any, seed: int) -> Any:
        batches.append(batch.images.numpy().copy())
        return step(run, module, batch, seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FineTune, "_step", noted)
        judged = world.retrain(snapshot)
    assert judged.version is not None
    yield world, batches, judged.version


def test_no_test_or_audit_image_is_ever_in_a_batch(retrained: tuple[LearningWorld, list[Any], str]) -> None:
    world, batches, version = retrained
    registry = world.project.registry
    backbone = Engines().get(registry, registry.version(version).backbone)
    buckets: dict[str, set[Split]] = {}
    for uri, facts in world.project.catalogue.images.items():
        pixels = backbone.decode(world.images.kept[uri])
        buckets.setdefault(digest(pixels.tobytes()), set()).add(facts.bucket)
    seen = [buckets[digest(image.tobytes())] for batch in batches for image in batch]  # KeyError: nobody's image
    assert len(seen) > 200
    assert set().union(*buckets.values()) >= {Split.TRAIN, Split.TEST, Split.AUDIT}
    assert all(found == {Split.TRAIN} for found in seen)


def test_serving_says_of_the_same_bytes_what_evaluation_said(
    retrained: tuple[LearningWorld, list[Any], str],
) -> None:
    world, _, name = retrained
    registry = world.project.registry
    version = registry.version(name)
    live = load_model(registry, Engines(), name, None)
    uris = world.uris(Split.TEST)
    pixels = np.stack([live.engine.decode(world.images.kept[uri]) for uri in uris])
    served = live.head.probabilities(live.engine.features(pixels))
    evaluated = registry.head(version).probabilities(world.project.features(version.backbone).rows(uris))
    assert np.abs(served - evaluated).max() <= 1e-4
    right = [live.head.labels[row.argmax()] == world.truth[uri] for row, uri in zip(served, uris, strict=True)]
    assert version.evaluation.test_accuracy == pytest.approx(np.mean(right))
    assert version.evaluation.artefact is not None
    assert version.evaluation.artefact.difference <= 1e-4


def test_a_thousand_more_labels_move_no_image_between_splits(tmp_path: Path) -> None:
    world = LearningWorld(tmp_path, images=500, config={"backbone": SMALL["backbone"]})
    before = {uri: (f.group, f.bucket) for uri, f in world.project.catalogue.images.items()}
    first = [_example(uri, *place, world.truth[uri]) for uri, place in before.items() if place[1] is Split.TRAIN]
    train, validation = ({e.uri for e in part} for part in divide(first, 0.15))
    world.add(1000)
    after = {uri: (f.group, f.bucket) for uri, f in world.project.catalogue.images.items()}
    assert len(after) == 1500
    assert {uri: after[uri] for uri in before} == before
    assert all(fold_of(after[u][0], 5) == fold_of(before[u][0], 5) for u in before)
    grown = [_example(uri, *place, world.truth[uri]) for uri, place in after.items() if place[1] is Split.TRAIN]
    more_train, more_validation = ({e.uri for e in part} for part in divide(grown, 0.15))
    assert train <= more_train
    assert validation <= more_validation


def _example(uri: str, group: str, bucket: Split, label: str) -> Example:
    return Example(0, uri, group, bucket, label)
