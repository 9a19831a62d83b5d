"""A project that wants an ensemble: refreshed, judged against what was live before, reported, retrained."""

from __future__ import annotations

from pathlib import Path

from labelloop.ensemble import EnsembleHead
from labelloop.head import Head
from labelloop.records import Bucket, Outcome
from tests.unit.learning_world import LearningWorld


def test_an_ensemble_takes_over_from_a_linear_head_and_gives_way_to_one(tmp_path: Path) -> None:
    world = LearningWorld(tmp_path, images=300)
    labelled = [*world.uris(Bucket.TRAIN)[:90], *world.uris(Bucket.TEST)]
    first = world.refresh(world.label(labelled))
    assert first.verdict.outcome is Outcome.PROMOTE

    world.configure({"head": {"kind": "ensemble", "members": ["svm"]}})
    second = world.refresh(world.label(world.uris(Bucket.TRAIN)[90:130]))
    version = world.live()
    assert version.name == second.version
    assert version.recipe["members"] == ["svm"]
    head = world.project.registry.head(version)
    assert isinstance(head, EnsembleHead)
    compared = second.evaluation.comparison
    assert compared is not None
    assert compared.on == "train labels, out of fold"
    assert compared.n == second.evaluation.labels

    world.configure({"head": {"kind": "linear"}})
    third = world.refresh(world.label(world.uris(Bucket.TRAIN)[130:170]))
    assert third.version == world.live().name
    assert isinstance(world.project.registry.head(world.live()), Head)
