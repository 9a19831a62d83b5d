"""A worker that dies after the last epoch: the next one need not learn it all again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labelloop.errors import CancelledError
from labelloop.records.images import Split
from labelloop.rules.attempts import begun
from retrain_worker import retrain
from tests.unit.worlds.learning import LearningWorld

CONFIG = {
    "backbone": {"name": "small_cnn", "image_size": 16, "options": {"filters": [8], "dense": 16, "dropout": 0.0}},
    "retrain": {"epochs": 2, "learning_rate": 0.01, "backbone_rate": 1.0},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LearningWorld]:
    yield LearningWorld(tmp_path_factory.mktemp("world"), images=150, config=CONFIG)


def checkpoints(world: LearningWorld) -> list[str]:
    return [info.key for info in world.project.store.list("checkpoints/")]


@pytest.mark.parametrize("step", ["_featurise_pool", "_learn", "look_at"])
def test_the_second_attempt_goes_on_from_the_last_epoch(
    world: LearningWorld, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise SystemExit(step)

    world.configure({"seed": len(step)})  # a run of its own
    train = world.uris(Split.TRAIN)
    world.labels.pop(train[-1], None)
    snapshot = world.label(train[:-1])
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(retrain, step, dies)
        world.retrain(snapshot)
    runs = world.project.runs
    killed = runs.start("retrain", snapshot=snapshot, config=world.config.hash, attempt=1, worker="w")
    runs.end(killed, "failed", ("its worker died before the run ended",))
    assert checkpoints(world)
    newest = world.label(train[-1:])  # people go on
    assert newest != snapshot
    again = world.retrain(begun([r for r in runs.all() if r.config == world.config.hash], "retrain", newest))
    assert again.training["resumed_at"] == len(again.training["epochs"]) == 2
    assert world.project.registry.version(again.version or "").snapshot == newest
    assert checkpoints(world) == []


def test_a_run_that_is_cancelled_after_its_last_epoch_leaves_nothing(
    world: LearningWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(*_: object, **__: object) -> None:
        raise CancelledError("cancelled by ann")

    world.configure({"seed": 99})
    monkeypatch.setattr(retrain, "look_at", cancelled)
    with pytest.raises(CancelledError):
        world.retrain(world.label(world.uris(Split.TRAIN)))
    assert checkpoints(world) == []
