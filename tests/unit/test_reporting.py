"""A retrain leaves a report and lets the gate see robustness; a refresh's is made when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from labelloop.records import Bucket
from labelloop.reports import kept_report
from retrain_worker import retrain
from retrain_worker.intervals import mean_interval, paired_interval
from retrain_worker.refresh import Judged
from retrain_worker.report.answers import Looked
from retrain_worker.reporting import Sight, report_of_version
from retrain_worker.training.fit import History
from tests.unit.learning_world import LearningWorld
from tests.unit.report_world import inputs, pixels

CONFIG = {
    "backbone": {"name": "small_cnn", "image_size": 16, "options": {"filters": [8, 16], "dense": 32, "dropout": 0.0}},
    "retrain": {"epochs": 2, "learning_rate": 0.01, "backbone_rate": 1.0},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LearningWorld]:
    world = LearningWorld(tmp_path_factory.mktemp("world"), images=300, config=CONFIG)
    world.refresh(world.label([*world.uris(Bucket.TRAIN)[:100], *world.uris(Bucket.TEST)]))
    yield world


@pytest.fixture(scope="module")
def retrained(world: LearningWorld) -> Judged:
    return world.retrain(world.label(world.uris(Bucket.TRAIN)))


def test_a_retrain_is_judged_on_disturbed_images_and_leaves_a_report(world: LearningWorld, retrained: Judged) -> None:
    test = world.uris(Bucket.TEST)
    found = retrained.evaluation.robustness
    assert found is not None
    assert found.n == len(test)
    (check,) = [c for c in retrained.verdict.checks if c.rule == "robustness"]
    assert f"{found.challenger:.3f} against {found.champion:.3f}" in check.reason
    kept = kept_report(world.project.store, retrained.version or "")
    assert kept is not None
    rows = kept.json["challenger"]["robustness"]
    assert np.mean([row["accuracy"]["value"] for row in rows]) == pytest.approx(found.challenger)
    assert kept.json["challenger"]["name"] == retrained.version
    assert kept.json["champion"]["name"] == "v1"
    assert kept.json["verdict"]["outcome"] == retrained.verdict.outcome.value
    assert len(kept.json["training"]["epochs"]) == 2
    assert kept.json["test"]["judged"] == len(test)
    assert kept.html.startswith("<!doctype html>")


def test_the_report_says_what_the_version_was_judged_on(world: LearningWorld, retrained: Judged) -> None:
    kept = kept_report(world.project.store, retrained.version or "")
    assert kept is not None
    assert kept.json["challenger"]["measures"]["accuracy"]["value"] == pytest.approx(retrained.evaluation.test_accuracy)


def test_a_refresh_is_reported_from_kept_features_alone(world: LearningWorld) -> None:
    version = world.project.registry.version("v1")
    world.images.read_uris.clear()
    made = report_of_version(world.project, version)
    assert world.images.read_uris == []
    assert made.json["challenger"]["measures"]["accuracy"]["value"] == pytest.approx(version.evaluation.test_accuracy)
    assert made.json["champion"] is None
    kept = kept_report(world.project.store, "v1")
    assert kept is not None
    assert kept.html == made.html


def test_a_report_that_cannot_be_made_costs_no_run(
    world: LearningWorld, retrained: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no pen")

    monkeypatch.setattr(retrain, "report_of_run", broken)
    version = world.project.registry.version(retrained.version or "")
    history = History((), 0, 0.0, 0.0, "fp32")
    sight = Sight(inputs(pixels()), Looked(np.zeros(0, dtype=np.bool_), {}, ()))
    assert retrain._report(world.project, retrain.Entered(version, None, sight), history) is None


def test_an_interval_of_means_is_the_paired_one_where_differences_are_whole() -> None:
    whole = np.array([1.0] * 7 + [-1.0] * 3 + [0.0] * 20)
    assert mean_interval(whole) == pytest.approx(paired_interval(7, 3, 30))
    narrow, wide = mean_interval(whole / 2), mean_interval(whole)
    assert narrow[1] - narrow[0] < wide[1] - wide[0]
