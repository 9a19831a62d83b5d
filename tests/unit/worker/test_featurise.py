"""Images in, rows of numbers out: an image of which the network makes none is set aside like an unreadable one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from labelloop.errors import CorruptArtefactError
from labelloop.model.net import Backbone
from labelloop.queue.progress import JobProgress
from labelloop.records.images import Split
from labelloop.records.versions import COLD_START
from retrain_worker.featurise import featurise, featurise_under
from retrain_worker.score import score
from tests.unit.worlds.learning import LearningWorld


def overflow(monkeypatch: pytest.MonkeyPatch, row: int) -> None:
    """From now on the network makes infinity or nothing of one image of each batch."""
    true = Backbone.features

    def broken(self: Backbone, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        rows = true(self, pixels).copy()
        rows[row] = [np.nan if k % 2 else np.inf for k in range(rows.shape[1])]
        return rows

    monkeypatch.setattr(Backbone, "features", broken)


def test_an_image_without_finite_numbers_gets_a_problem_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = LearningWorld(tmp_path, images=40)
    before = set(world.truth)
    overflow(monkeypatch, 1)
    world.add(20)
    came = sorted(set(world.truth) - before)
    images = world.project.catalogue.images
    broken = [u for u in came if images[u].problem]
    assert broken == [came[1]]
    assert "no finite numbers" in (images[broken[0]].problem or "")
    assert images[broken[0]].group
    backbone = world.project.registry.initial_backbone()
    assert backbone is not None
    features = world.project.features(backbone.id)
    assert broken[0] not in features
    assert np.isfinite(features.rows(sorted(features.index.places))).all()
    others = [u for u in came if u not in broken]
    monkeypatch.undo()
    np.testing.assert_allclose(features.rows(others), fresh(world, others), atol=1e-5)  # other neighbours in a batch
    assert score(world.context, world.project, COLD_START) == len(world.uris(*Split)) - 1


def fresh(world: LearningWorld, uris: list[str]) -> NDArray[np.float32]:
    """The rows as they come without any broken one beside them."""
    assert featurise(world.context, world.project, uris) == len(uris)
    backbone = world.project.registry.initial_backbone()
    assert backbone is not None
    return world.project.features(backbone.id).rows(uris)


def test_a_fine_tuned_network_without_finite_numbers_is_at_fault_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = LearningWorld(tmp_path, images=40)
    record = world.project.registry.initial_backbone()
    assert record is not None
    first = world.context.backbone(world.project, record)
    tuned = Backbone(replace(record, id="tuned"), first.module)
    overflow(monkeypatch, 3)
    with pytest.raises(CorruptArtefactError, match="1 of 32 images: its fine-tune has diverged"):
        featurise_under(world.context, world.project, tuned, sorted(world.truth), JobProgress())
    world.project.catalogue.update()
    assert not any(facts.problem for facts in world.project.catalogue.images.values())
