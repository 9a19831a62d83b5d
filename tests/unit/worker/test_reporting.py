"""A retrain leaves a report and lets the gate see robustness; a refresh's is made when it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import cli.connect
import cli.here.versions
from cli.main import app
from labelloop.errors import ImageUnreadableError, NotFoundError
from labelloop.records.evidence import Calibration
from labelloop.records.images import Split
from labelloop.rules.paired_intervals import mean_interval, paired_interval
from labelloop.store.reports import kept_report
from retrain_worker import retrain
from retrain_worker.refresh import RunResult
from retrain_worker.report.answers import PixelAnswers
from retrain_worker.reporting import Sight, report_of_version
from retrain_worker.training.fit import FineTuneHistory
from retrain_worker.verify import Figure, Verified, verify
from tests.unit.worlds.learning import LearningWorld
from tests.unit.worlds.report import inputs, pixels

CONFIG = {
    "backbone": {"name": "small_cnn", "image_size": 16, "options": {"filters": [8, 16], "dense": 32, "dropout": 0.0}},
    "retrain": {"epochs": 2, "learning_rate": 0.01, "backbone_rate": 1.0},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LearningWorld]:
    world = LearningWorld(tmp_path_factory.mktemp("world"), images=300, config=CONFIG)
    world.refresh(world.label([*world.uris(Split.TRAIN)[:100], *world.uris(Split.TEST)]))
    yield world


@pytest.fixture(scope="module")
def retrained(world: LearningWorld) -> RunResult:
    return world.retrain(world.label(world.uris(Split.TRAIN)))


def test_a_retrain_is_judged_on_disturbed_images_and_leaves_a_report(
    world: LearningWorld, retrained: RunResult
) -> None:
    test = world.uris(Split.TEST)
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


def test_the_report_says_what_the_version_was_judged_on(world: LearningWorld, retrained: RunResult) -> None:
    kept = kept_report(world.project.store, retrained.version or "")
    assert kept is not None
    assert kept.json["challenger"]["measures"]["accuracy"]["value"] == pytest.approx(retrained.evaluation.test_accuracy)


def test_a_refresh_is_reported_from_kept_features_alone(world: LearningWorld) -> None:
    version = world.project.registry.version("v1")
    world.images.read_uris.clear()
    made = report_of_version(world.context, world.project, version)
    assert world.images.read_uris == []
    assert made.json["challenger"]["measures"]["accuracy"]["value"] == pytest.approx(version.evaluation.test_accuracy)
    assert made.json["champion"] is None
    kept = kept_report(world.project.store, "v1")
    assert kept is not None
    assert kept.html == made.html


def test_a_report_made_again_does_not_take_the_place_of_one_that_saw_pixels(
    world: LearningWorld, retrained: RunResult
) -> None:
    before = kept_report(world.project.store, retrained.version or "")
    version = world.project.registry.version(retrained.version or "")
    assert report_of_version(world.context, world.project, version).json["challenger"]["robustness"] == []
    assert kept_report(world.project.store, version.name) == before


def test_a_report_without_test_labels_says_so(tmp_path: Path) -> None:
    world = LearningWorld(tmp_path, images=150)
    world.refresh(world.label(world.uris(Split.TRAIN)[:80]))
    made = report_of_version(world.context, world.project, world.live())
    assert made.json["test"]["judged"] == 0
    assert made.json["notes"][0].startswith("There are no test labels yet")


def test_features_that_are_no_longer_kept_are_made_again(tmp_path: Path) -> None:
    world = LearningWorld(tmp_path, images=150, config=CONFIG)
    world.refresh(world.label([*world.uris(Split.TRAIN)[:80], *world.uris(Split.TEST)]))
    world.refresh(world.label(world.uris(Split.TRAIN)[80:90]))
    version = world.live()
    assert version.parent is not None
    for info in list(world.project.store.list("features/")):
        world.project.store.delete(info.key)
    world.project._features.clear()
    made = report_of_version(world.context, world.project, version)
    assert made.json["challenger"]["measures"]["accuracy"]["value"] == pytest.approx(version.evaluation.test_accuracy)
    assert made.json["champion"]["name"] == version.parent
    again = verify(world.context, world.project, version)
    assert again.holds
    assert {f.name: f.found for f in again.figures}["test: labels"] == version.evaluation.test_n
    assert list(world.project.store.list("features/")) == []
    world.images.kept.clear()
    world.images.read = refuse  # type: ignore[method-assign]
    with pytest.raises(NotFoundError, match="their features are no longer kept"):
        report_of_version(world.context, world.project, version)
    lost = verify(world.context, world.project, version)
    assert not lost.holds
    n = version.evaluation.test_n
    assert lost.notes == (f"{n} of {n} test images have no features left and cannot be read",)


@pytest.mark.parametrize(
    ("figure", "change"),
    [
        ("test: accuracy", {"test_accuracy": 0.1}),
        ("test: labels", {"test_n": 7}),
        ("test: expected calibration error", {"calibration": Calibration(10, 0.9)}),
    ],
)
def test_what_a_version_was_judged_on_can_be_computed_again(
    world: LearningWorld, retrained: RunResult, figure: str, change: dict[str, Any]
) -> None:
    version = world.project.registry.version(retrained.version or "")
    found = verify(world.context, world.project, version)
    assert found.holds
    names = {f.name for f in found.figures if f.recorded is not None}
    assert {"test: accuracy of the version before", figure} <= names
    assert next(f for f in found.figures if f.name == "audit: labels").found == 0
    other = replace(version, evaluation=replace(version.evaluation, **change))
    assert [f.name for f in verify(world.context, world.project, other).figures if f.differs] == [figure]


def test_verify_ends_with_one_where_figures_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = [Figure("test: accuracy", 0.9, 0.9), Figure("audit: accuracy", None, 0.8)]
    monkeypatch.setattr(cli.connect, "open_deployment", lambda _: SimpleNamespace(project=lambda _: None))
    monkeypatch.setattr(cli.here.versions, "verified", lambda *_: Verified("v7", tuple(figures), ("a note",)))
    fine = CliRunner().invoke(app, ["verify", "v7"])
    assert fine.exit_code == 0
    assert "as recorded" in fine.output
    assert "only reported" in fine.output
    assert "a note" in fine.output
    figures[0] = Figure("test: accuracy", 0.9, 0.8)
    wrong = CliRunner().invoke(app, ["verify", "v7"])
    assert wrong.exit_code == 1
    assert "differs" in wrong.output
    assert json.loads(CliRunner().invoke(app, ["verify", "--json"]).output)["holds"] is False


def refuse(uri: str) -> tuple[bytes, str]:
    raise ImageUnreadableError(f"{uri} is gone")


def test_a_report_that_cannot_be_made_costs_no_run(
    world: LearningWorld, retrained: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no pen")

    monkeypatch.setattr(retrain, "report_of_run", broken)
    version = world.project.registry.version(retrained.version or "")
    history = FineTuneHistory((), 0, 0.0, 0.0, "fp32")
    sight = Sight(inputs(pixels()), PixelAnswers(np.zeros(0, dtype=np.bool_), {}, ()))
    assert retrain._report(world.project, retrain.Entered(version, None, sight), history) is None


def test_an_interval_of_means_is_the_paired_one_where_differences_are_whole() -> None:
    whole = np.array([1.0] * 7 + [-1.0] * 3 + [0.0] * 20)
    assert mean_interval(whole) == pytest.approx(paired_interval(7, 3, 30))
    narrow, wide = mean_interval(whole / 2), mean_interval(whole)
    assert narrow[1] - narrow[0] < wide[1] - wide[0]
