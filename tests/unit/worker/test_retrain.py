"""After a fine-tune only labels that the backbone never saw are evidence: in its own retrain and in every refresh.

A backbone knows the labels it learned from: a network fine-tuned on 150 digits was right on .987 of them out of fold,
and on .915 in truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from labelloop.records.evidence import Outcome
from labelloop.records.images import Split
from retrain_worker.refresh import RunResult
from tests.unit.worlds.learning import LearningWorld

CONFIG = {
    "backbone": {"name": "small_cnn", "image_size": 16, "options": {"filters": [8], "dense": 16, "dropout": 0.0}},
    "retrain": {"epochs": 2, "learning_rate": 0.01, "backbone_rate": 1.0},
}
SEEN, MEANWHILE, AFTER, TEST = 60, 20, 30, 30  # train labels: the fine-tune's, those given during it, those after it


class Tuned:
    """A project whose live backbone was fine-tuned, and how the retrain and the refresh after it were judged."""

    def __init__(self, folder: Path) -> None:
        self.world = world = LearningWorld(folder, images=240, config=CONFIG)
        train = world.uris(Split.TRAIN)
        first = world.label([*train[:SEEN], *world.uris(Split.TEST)[:TEST]])
        assert world.refresh(first).verdict.outcome is Outcome.PROMOTE
        self.first = first
        self.later = world.label(train[SEEN : SEEN + MEANWHILE])
        self.retrained: RunResult = world.retrain(first)
        self.promote(self.retrained)
        self.refreshed: RunResult = world.refresh(world.label(train[SEEN + MEANWHILE :][:AFTER]))

    def promote(self, judged: RunResult) -> None:
        """A person's word."""
        assert judged.version is not None
        registry = self.world.project.registry
        registry.deploy(judged.version, expected=self.world.live().name, action="promote", by="anna", why="")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuned]:
    yield Tuned(tmp_path_factory.mktemp("world"))


def test_a_retrain_is_judged_on_labels_that_its_backbone_never_saw(tuned: Tuned) -> None:
    evaluation = tuned.retrained.evaluation
    assert evaluation.labels == SEEN + MEANWHILE  # the head learns from all
    assert evaluation.judged_on == MEANWHILE
    assert evaluation.test_n == TEST
    assert evaluation.comparison is not None  # and the champion has not learned them either
    assert evaluation.comparison.n == MEANWHILE


def test_a_refresh_on_a_fine_tuned_backbone_is_judged_on_labels_it_never_saw(tuned: Tuned) -> None:
    evaluation = tuned.refreshed.evaluation
    assert evaluation.labels == SEEN + MEANWHILE + AFTER
    assert evaluation.judged_on == MEANWHILE + AFTER
    assert evaluation.comparison is not None
    assert evaluation.comparison.n == MEANWHILE + AFTER


def test_a_retrain_names_where_it_came_from(tuned: Tuned) -> None:
    registry = tuned.world.project.registry
    version = registry.version(tuned.retrained.version or "")
    backbone = registry.backbone(version.backbone)
    assert (version.kind, version.parent, version.snapshot) == ("retrain", "v1", tuned.later)
    assert backbone.snapshot == tuned.first  # what it was fine-tuned on is what it saw
    assert version.reference is None  # another backbone: losses are summed up from here on
    assert tuned.retrained.training["best"] in (1, 2)


def test_images_that_the_champion_cannot_see_do_not_judge_it(tuned: Tuned) -> None:
    """The live head is damaged, so the version before it stands in: new images have no features on its backbone."""
    world = tuned.world
    before = set(world.truth)
    world.add(40)
    new = [u for u in world.uris(Split.TRAIN, Split.TEST) if u not in before]
    old = world.project.features(world.project.registry.version("v1").backbone)
    assert not any(u in old for u in new)
    registry, newest = world.project.registry, world.label(new)
    for version in registry.versions():
        if version.name != "v1":
            world.project.store.put(version.head_key, b"damaged")
    judged = world.retrain(newest)
    assert "judged against v1 instead" in judged.verdict.reasons[-1]
    assert judged.evaluation.test_n == TEST
    assert judged.evaluation.labels == SEEN + MEANWHILE + AFTER
