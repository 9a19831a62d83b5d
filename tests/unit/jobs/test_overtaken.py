"""A retrain while people label: refreshes go live as it ends, and it still does, judged against the last of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from labelloop.code import code_version
from labelloop.errors import ConflictError
from labelloop.records.evidence import Outcome, Verdict
from labelloop.records.images import Split
from retrain_worker import refresh, retrain
from retrain_worker.jobs import _of_a_retrain
from tests.unit.worlds.learning import LearningWorld

CONFIG = {
    "backbone": {"name": "small_cnn", "image_size": 16, "options": {"filters": [8], "dense": 16, "dropout": 0.0}},
    "retrain": {"epochs": 1, "learning_rate": 0.01, "backbone_rate": 1.0},
}


@pytest.fixture
def world(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[LearningWorld]:
    for module in (refresh, retrain):
        monkeypatch.setattr(module, "judge", lambda *_: Verdict(Outcome.PROMOTE, ("forced",)))
    world = LearningWorld(tmp_path, images=200, config=CONFIG)
    world.refresh(world.label([*world.uris(Split.TRAIN)[:60], *world.uris(Split.TEST)[:20]]))
    yield world


def labelling(world: LearningWorld, step: Callable[..., Any], times: int) -> Callable[..., Any]:
    """The same step, and after it ten new labels with a refresh that goes live; so many times."""
    left = iter(range(times))

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        if next(left, None) is not None:
            open_ones = [u for u in world.uris(Split.TRAIN, Split.TEST) if u not in world.labels]
            world.refresh(world.label(open_ones[:10]))
        return result

    return wrapped


def test_who_is_overtaken_is_judged_again_and_goes_live(world: LearningWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrain, "look_at", labelling(world, retrain.look_at, 99))  # minutes, so people get somewhere
    monkeypatch.setattr(retrain, "_learn", labelling(world, retrain._learn, 2))  # seconds: bad luck
    judged = world.retrain(world.project.snapshots.latest().snapshot)  # type: ignore[union-attr]
    live = world.live()
    assert (live.kind, live.name, live.code) == ("retrain", judged.version, code_version())
    before = world.project.registry.deployments()[-2]
    assert before.by == "refresh"
    assert live.parent == before.version  # it was judged against what was live
    assert live.snapshot == world.project.snapshots.latest().snapshot  # type: ignore[union-attr]
    assert [v.kind for v in world.project.registry.versions()].count("retrain") == 1
    test = sum(1 for u in world.uris(Split.TEST) if u in world.labels)
    assert (live.evaluation.test_n, live.evaluation.robustness.n) == (test, test)  # type: ignore[union-attr]


def test_an_image_is_looked_at_once_however_often_the_head_is_made(
    world: LearningWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[str]] = []
    judge = retrain.judge

    def noted(*args: Any) -> Verdict:
        read.append(list(world.images.read_uris))
        world.images.read_uris.clear()
        return judge(*args)

    monkeypatch.setattr(retrain, "judge", noted)
    monkeypatch.setattr(retrain, "_learn", labelling(world, retrain._learn, 2))
    labelled = {u for u in world.uris(Split.TEST) if u in world.labels}
    world.retrain(world.project.snapshots.latest().snapshot)  # type: ignore[union-attr]
    assert len(read) == 3
    assert labelled <= set(read[0])
    assert not labelled & {u for later in read[1:] for u in later}


def test_whoever_is_always_overtaken_fails_as_something_to_try_again(
    world: LearningWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrain, "DEPLOY_TRIES", 2)
    monkeypatch.setattr(retrain, "_learn", labelling(world, retrain._learn, 2))
    snapshot = world.label([])
    with pytest.raises(ConflictError):
        world.retrain(snapshot)
    assert list(world.project.store.list("checkpoints/"))  # goes on from the last epoch
    again = world.retrain(snapshot)
    assert again.training["resumed_at"] == 1
    assert world.live().name == again.version


def test_a_retrain_notes_how_many_images_there_were(tmp_path: Any) -> None:
    world = LearningWorld(tmp_path, images=12)
    noted = _of_a_retrain(world.project)
    assert noted == {"recipe": world.config.recipe, "images": 12}
