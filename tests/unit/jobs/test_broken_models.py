"""Models that are broken in ways people have seen: the gate stops each, and says why."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from labelloop.model.net import Backbone
from labelloop.records.evidence import Outcome
from labelloop.records.images import Split
from retrain_worker import retrain
from retrain_worker.evidence.artefact import Served, in_turn, try_out
from retrain_worker.heads import recipe as heads
from retrain_worker.heads.logistic import LinearFit, fit_head
from retrain_worker.refresh import RunResult
from tests.unit.worlds.learning import LearningWorld

SMALL = {
    "backbone": {"name": "small_cnn", "image_size": 16, "options": {"filters": [8, 16], "dense": 32, "dropout": 0.0}},
    "retrain": {"epochs": 3, "learning_rate": 0.01, "backbone_rate": 1.0},
}


@pytest.fixture
def world(tmp_path: Path) -> LearningWorld:
    """A champion that learned from 150 labels; the whole test bucket is labelled."""
    return _with_champion(LearningWorld(tmp_path, images=600))


@pytest.fixture(scope="module")
def trainable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LearningWorld]:
    """The same with a network that can be fine-tuned."""
    yield _with_champion(LearningWorld(tmp_path_factory.mktemp("world"), config=SMALL))


def _with_champion(world: LearningWorld) -> LearningWorld:
    snapshot = world.label([*world.uris(Split.TRAIN)[:150], *world.uris(Split.TEST)])
    assert world.refresh(snapshot).verdict.outcome is Outcome.PROMOTE
    return world


def stopped_by(judged: RunResult) -> dict[str, Outcome]:
    return {c.rule: c.outcome for c in judged.verdict.checks if c.outcome is not Outcome.PROMOTE}


def test_shuffled_labels(world: LearningWorld) -> None:
    uris = [u for u in world.labels if u not in world.uris(Split.TEST)]
    shuffled = np.random.default_rng(0).permutation([world.labels[u] for u in uris])
    judged = world.refresh(world.label([], dict(zip(uris, map(str, shuffled), strict=True))))
    assert judged.verdict.outcome is Outcome.REJECT
    assert stopped_by(judged)["chance"] is Outcome.REJECT
    assert any("nothing was learned; labels look random" in r for r in judged.verdict.reasons)


def test_class_names_in_another_order(world: LearningWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(*args: Any, **options: Any) -> LinearFit:
        fitted = fit_head(*args, **options)
        names = list(fitted.head.labels)
        names[3], names[8] = names[8], names[3]
        names[0], names[1], names[2] = names[1], names[2], names[0]
        return replace(fitted, head=replace(fitted.head, labels=tuple(names)))

    monkeypatch.setattr(heads, "fit_head", swapped)
    judged = world.refresh(world.label(world.uris(Split.TRAIN)[:170]))
    assert judged.verdict.outcome is Outcome.REJECT
    assert stopped_by(judged)["class order"] is Outcome.REJECT
    (reason,) = [r for r in judged.verdict.reasons if "swapped" in r]
    assert "3 → 8" in reason
    assert "8 → 3" in reason


def test_a_class_that_it_is_blind_to(world: LearningWorld) -> None:
    eights = [u for u in world.uris(Split.TRAIN) if world.truth[u] == "8"]
    judged = world.refresh(world.label(world.uris(Split.TRAIN)[150:300], dict.fromkeys(eights, "3")))
    assert judged.verdict.outcome is Outcome.REJECT
    assert stopped_by(judged)["class recall"] is Outcome.REJECT
    assert any("loses a class: 8 recognised" in r for r in judged.verdict.reasons)


def test_inputs_that_are_scaled_otherwise_in_serving(trainable: LearningWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    featurise = retrain.featurise_under

    def unscaled(context: Any, project: Any, backbone: Backbone, *rest: Any) -> int:
        monkeypatch.setattr(backbone, "normalise", lambda images: images.float())
        return featurise(context, project, backbone, *rest)

    monkeypatch.setattr(retrain, "featurise_under", unscaled)
    judged = trainable.retrain(trainable.label(trainable.uris(Split.TRAIN)[:200]))
    assert judged.verdict.outcome is Outcome.REJECT
    assert stopped_by(judged)["artefact"] is Outcome.REJECT
    assert "the artefact to serve differs from the one evaluated" in judged.verdict.reasons[0]


def test_a_network_that_answers_late(trainable: LearningWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    served = retrain.served

    def late(*args: Any) -> Any:
        model = served(*args)
        features = model.backbone.features
        monkeypatch.setattr(model.backbone, "features", lambda pixels: (time.sleep(0.02), features(pixels))[1])
        return model

    monkeypatch.setattr(retrain, "served", late)
    judged = trainable.retrain(trainable.label(trainable.uris(Split.TRAIN)[:220]))
    assert judged.verdict.outcome is not Outcome.PROMOTE
    assert stopped_by(judged)["latency"] is Outcome.HOLD
    assert any(r.startswith("too slow: ") for r in judged.verdict.reasons)


def test_forty_per_cent_more_are_seen_whatever_the_machine_does_meanwhile() -> None:
    slow, fast = in_turn([lambda: time.sleep(0.014), lambda: time.sleep(0.010)])
    assert 1.3 < slow / fast < 1.5


def test_a_champion_against_itself(trainable: LearningWorld) -> None:
    snapshot = trainable.label(trainable.uris(Split.TRAIN)[:240])
    first = trainable.retrain(snapshot)
    assert first.version is not None
    live = trainable.live().name
    trainable.project.registry.deploy(first.version, expected=live, action="promote", by="test", why="test")
    log = len(trainable.project.registry.deployments())
    again = trainable.retrain(snapshot)
    assert again.verdict.outcome is Outcome.HOLD
    assert "same predictions on every test image" in " ".join(again.verdict.reasons)
    assert trainable.refresh(snapshot).verdict.outcome is Outcome.HOLD
    assert len(trainable.project.registry.deployments()) == log


def test_the_same_inputs_give_the_same_figures(tmp_path: Path) -> None:
    figures = []
    for name in "ab":
        world = _with_champion(LearningWorld(tmp_path / name, images=300, config=SMALL))
        torch.manual_seed(ord(name))
        judged = world.retrain(world.label(world.uris(Split.TRAIN)[:160]))
        figures.append((replace(judged.evaluation, artefact=None), _epochs(judged.training)))  # that has a stopwatch
    assert figures[0] == figures[1]


def _epochs(training: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{k: v for k, v in e.items() if k not in {"seconds", "waited_s"}} for e in training["epochs"]]


@pytest.mark.parametrize(("device", "says"), [("cpu", True), ("cuda", False)])
def test_what_would_serve_is_timed_and_a_gpu_tells_nothing_of_backends(device: str, says: bool) -> None:
    quickened = []

    def side(name: str) -> Any:
        backbone = SimpleNamespace(
            decode=lambda data: np.zeros((3, 4, 4), np.uint8), features=lambda pixels: np.ones((len(pixels), 2)),
            quicken=lambda: quickened.append(name), device=SimpleNamespace(type=device),
        )  # fmt: skip
        return Served(cast("Any", backbone), cast("Any", SimpleNamespace(probabilities=lambda features: features)))

    project = cast("Any", SimpleNamespace(images=SimpleNamespace(read=lambda uri: (b"", "etag"))))
    tried = try_out(project, side("ours"), side("theirs"), ["s3://images/1.png"])
    assert tried is not None
    assert quickened == ["ours", "theirs"]
    assert tried.ms > 0
    assert (tried.champion_ms is not None) == says
