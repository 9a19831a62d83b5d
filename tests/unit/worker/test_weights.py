"""Some people's labels, and some classes, count more where models learn, and like all others where they are judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelloop.config.project import LabelWeights, parse_config
from labelloop.errors import SettingsError
from labelloop.records.images import Split
from labelloop.records.tasks import Annotation, Task
from retrain_worker.evidence.collect import LabelSets, Recipe, refresh_evidence
from retrain_worker.evidence.examples import examples_of
from retrain_worker.retrain import source_of, start_of, train_examples
from retrain_worker.training.data import parts_of
from tests.unit.worlds.learning import AT, LearningWorld


def test_a_weight_is_that_of_the_person_times_that_of_the_class() -> None:
    weights = LabelWeights(annotators={7: 0.5}, classes={"cat": 3.0})
    assert weights.of("cat", 7) == 1.5
    assert weights.of("dog", 7) == 0.5
    assert weights.of("dog", None) == 1.0


@pytest.mark.parametrize("bad", [{"annotators": {"7": 0}}, {"annotators": {"ann": 1}}, {"classes": {"cat": -1}}])
def test_weights_that_cannot_be_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="weights"):
        parse_config({"weights": bad}, "test")


def test_people_who_are_believed_more_win_where_people_contradict_each_other(tmp_path: Path) -> None:
    """Person 2 calls every second image of the class 3 an 8."""
    world = LearningWorld(tmp_path, images=250)
    train, project = world.uris(Split.TRAIN), world.project
    threes = [u for u in train if world.truth[u] == "3"]
    given = {u: (world.truth[u], 1) for u in train} | dict.fromkeys(threes[::2], ("8", 2))
    answers = {u: Annotation(i, AT, AT, label, completed_by=by) for i, (u, (label, by)) in enumerate(given.items())}
    snapshot = project.snapshots.freeze([Task(a.id, u, AT, (a,)) for u, a in answers.items()])
    backbone = project.registry.initial_backbone()
    assert backbone is not None
    features = project.features(backbone.id)
    said = []
    for weight in (1.0, 0.02):
        weights = LabelWeights(annotators={2: weight})
        sets = LabelSets(examples_of(snapshot, project.catalogue, features, weights))
        head = refresh_evidence(sets, features.rows, champion=None, recipe=Recipe()).fitted.head
        said.append(float(head.probabilities(features.rows(threes))[:, head.labels.index("3")].mean()))
    assert said[1] > said[0] + 0.1


def test_a_fine_tune_weighs_its_examples(tmp_path: Path) -> None:
    world = LearningWorld(tmp_path, images=200)
    name = world.label(world.uris(Split.TRAIN))
    world.configure({"weights": {"classes": {"3": 4.0}}})
    project = world.project
    examples = train_examples(project, project.snapshot(name))
    backbone = start_of(world.context, project)
    parts = parts_of(examples, source_of(project, backbone), world.config.retrain, 3, lambda *_: None)
    threes = parts.train.targets == parts.classes.index("3")
    assert 0 < threes.sum() < len(threes)
    assert set(parts.train.weights[threes]) == {4.0}
    assert set(parts.train.weights[~threes]) == {1.0}
