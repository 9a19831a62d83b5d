"""A project that wants an ensemble: refreshed, judged against what was live before, reported, retrained."""

from __future__ import annotations

from pathlib import Path

from labelloop.model.ensemble import EnsembleHead
from labelloop.model.head import Head
from labelloop.records.evidence import Outcome
from labelloop.records.images import Split
from labelloop.store.configs import keep_config
from tests.unit.worlds.learning import LearningWorld


def test_an_ensemble_takes_over_from_a_linear_head_and_gives_way_to_one(tmp_path: Path) -> None:
    world = LearningWorld(tmp_path, images=300)
    labelled = [*world.uris(Split.TRAIN)[:90], *world.uris(Split.TEST)]
    first = world.refresh(world.label(labelled))
    assert first.verdict.outcome is Outcome.PROMOTE

    world.configure({"head": {"kind": "ensemble", "members": ["svm"]}})
    second = world.refresh(world.label(world.uris(Split.TRAIN)[90:130]))
    version = world.live()
    assert version.name == second.version
    assert version.recipe["members"] == ["svm"]
    head = world.project.registry.head(version)
    assert isinstance(head, EnsembleHead)
    compared = second.evaluation.comparison
    assert compared is not None
    assert compared.on == "train labels, out of fold"
    assert compared.n == second.evaluation.labels
    assert (first.evaluation.head_changed, first.evaluation.artefact) == ((), None)
    assert second.evaluation.head_changed == ("ensemble instead of linear",)
    tried = second.evaluation.artefact
    assert tried is not None
    assert tried.difference < 1e-4
    assert tried.champion_ms is not None

    keep_config(world.project.store, world.config)
    world.configure({"head": {"kind": "linear"}, "weights": {"annotators": {7: 0.2}}})
    third = world.refresh(world.label(world.uris(Split.TRAIN)[130:170]))
    assert third.version == world.live().name
    assert third.evaluation.head_changed == ("linear instead of ensemble", "weights")
    assert isinstance(world.project.registry.head(world.live()), Head)


def test_another_kind_of_head_that_random_labels_show_to_be_worse_does_not_serve(tmp_path: Path) -> None:
    world = LearningWorld(tmp_path, images=700, config={"gate": {"slowdown": 1000}})
    world.refresh(world.label([*world.uris(Split.TRAIN)[:150], *world.uris(Split.TEST)]))
    world.configure({"head": {"kind": "ensemble", "members": ["random_forest"]}})
    judged = world.refresh(world.label(world.uris(Split.TRAIN)[150:160]))
    assert judged.evaluation.head_changed == ("ensemble instead of linear",)
    assert judged.verdict.outcome is Outcome.REJECT
    (check,) = [c for c in judged.verdict.checks if c.rule == "random labels"]
    assert check.outcome is Outcome.REJECT
    assert check.reason.startswith("worse on random labels")
