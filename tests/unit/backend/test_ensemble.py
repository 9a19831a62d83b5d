"""An ensemble goes the way of every head: registered, loaded, proven by its stored outputs, swapped in and out."""

from __future__ import annotations

import numpy as np
import pytest

from labelloop.model.ensemble import EnsembleHead
from labelloop.records.evidence import Evaluation, Outcome, Verdict
from labelloop.records.versions import BackboneRecord, Version
from labelloop.store.registry import Draft
from ml_backend.live import LiveProject
from ml_backend.loader import Engines
from ml_backend.metrics import Metrics
from retrain_worker.heads.ensemble import EnsembleRecipe, FittedEnsemble, fit_ensemble
from tests.unit.worlds.backend import CLASSES, World

ROWS = np.random.default_rng(0)


def fitted(dimension: int) -> FittedEnsemble:
    features = ROWS.normal(size=(18, dimension)).astype(np.float32)
    labels = [CLASSES[i % 3] for i in range(18)]
    features[np.arange(18), np.arange(18) % 3] += 5
    recipe = EnsembleRecipe(members=("svm", "lightgbm"))
    return fit_ensemble(features, labels, [f"g{i}" for i in range(18)], classes=CLASSES, recipe=recipe)


def add(world: World, backbone: BackboneRecord, dimension: int) -> Version:
    fit = fitted(dimension)
    draft = Draft(
        kind="refresh", backbone=backbone.id, head=fit.head, snapshot="s", config="c", code="0", parent=None,
        reference=None, recipe={"head": "ensemble", "members": list(fit.members)},
        evaluation=Evaluation("refresh", 18, 18, CLASSES), verdict=Verdict(Outcome.PROMOTE, ()),
        check_features=ROWS.normal(size=(8, dimension)).astype(np.float32),
    )  # fmt: skip
    return world.registry.add(draft)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def live(world: World) -> LiveProject:
    return LiveProject(world.record, world.store, Engines(), Metrics())


def test_an_ensemble_serves_and_makes_way_again(world: World, live: LiveProject) -> None:
    backbone = world.backbone()
    for version in (
        world.add(backbone, answer=0), add(world, backbone, backbone.dimension), world.add(backbone, answer=1),
    ):  # fmt: skip
        world.deploy(version)
        live.refresh()
        assert live.model is not None
        assert live.model.name == version.name
        assert isinstance(live.model.head, EnsembleHead) == (version.name == "v2")
        assert live.model.head.probabilities(np.zeros((2, backbone.dimension), np.float32)).shape == (2, 3)


def test_an_ensemble_for_other_features_is_refused(world: World, live: LiveProject) -> None:
    backbone = world.backbone()
    world.deploy(world.add(backbone, answer=0))
    live.refresh()
    world.deploy(add(world, backbone, backbone.dimension + 1))
    live.refresh()
    assert live.model is not None
    assert live.model.name == "v1"
    assert "features" in live.refused()[0].reason


def test_a_damaged_ensemble_is_refused(world: World, live: LiveProject) -> None:
    backbone = world.backbone()
    version = add(world, backbone, backbone.dimension)
    world.corrupt(version.head_key)
    world.deploy(version)
    live.refresh()
    assert live.model is None
    assert "hash" in live.refused()[0].reason
