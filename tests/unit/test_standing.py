from pathlib import Path

import numpy as np
import pytest

from labelloop.acquisition import Quota
from labelloop.records import JUDGING, Bucket
from labelloop.scores import COLD_START
from retrain_worker import standing
from retrain_worker.examples import examples_of
from retrain_worker.score import score
from retrain_worker.standing import labelled_of, quota_of, situation_of, unlabelled
from tests.unit.learning_world import LearningWorld


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> LearningWorld:
    """Sixty train and forty test labels, and a live version."""
    world = LearningWorld(tmp_path_factory.mktemp("standing"), images=400, config={"queue": {"quota_most": 0.3}})
    world.refresh(world.label([*world.uris(Bucket.TRAIN)[:60], *world.uris(Bucket.TEST)[:40]]))
    return world


def examples(world: LearningWorld):  # type: ignore[no-untyped-def]
    latest = world.project.snapshots.latest()
    assert latest is not None
    features = world.project.features(world.live().backbone)
    return examples_of(world.project.snapshot(latest.snapshot), world.project.catalogue, features), features


def test_a_head_learns_from_unlabelled_train_images_alone(
    world: LearningWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of test and audit not even the features are looked at."""
    given, features = examples(world)
    asked: list[str] = []
    rows = features.rows
    monkeypatch.setattr(type(features), "rows", lambda _, uris: (asked.extend(uris), rows(uris))[1])
    found = unlabelled(world.project, features, given)
    assert found is not None
    assert len(found) == len(asked) == len(world.uris(Bucket.TRAIN)) - 60
    bucket = {u: world.project.catalogue.images[u].bucket for u in asked}
    assert set(bucket.values()) == {Bucket.TRAIN}
    assert not set(asked) & world.labels.keys()


def test_the_sample_is_the_same_whoever_draws_it_and_moves_little(
    world: LearningWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "POOL_MOST", 50)
    given, features = examples(world)
    first, again = (unlabelled(world.project, features, given) for _ in range(2))
    fewer = unlabelled(world.project, features, given[:-1])
    assert first is not None
    assert again is not None
    assert fewer is not None
    np.testing.assert_array_equal(first, again)
    shared = (first[:, None] == fewer[None]).all(axis=2).any(axis=1).sum()
    assert shared >= 49


def test_a_head_that_takes_no_pool_gets_none(tmp_path: Path) -> None:
    world = LearningWorld(tmp_path, images=60, config={"head": {"pool": False}})
    world.label(world.uris(Bucket.TRAIN)[:30])
    backbone = world.project.registry.initial_backbone()
    assert backbone is not None
    assert unlabelled(world.project, world.project.features(backbone.id), []) is None


def test_doubts_are_judged_on_the_random_test_labels(world: LearningWorld) -> None:
    given, features = examples(world)
    head = world.project.registry.head(world.live())
    situation = situation_of(given, features, head, world.project)
    assert situation.has_model
    assert situation.doubts.n == len({e.group for e in given if e.bucket is Bucket.TEST}) == 40
    assert situation.doubts.auc is None or situation.doubts.auc > 0.5
    assert not situation_of(given, features, None, world.project).has_model


def test_labelled_images_reach_the_strategies_with_their_columns(world: LearningWorld) -> None:
    given, features = examples(world)
    found = labelled_of(given, features, ("3", "7"))
    assert found.features.shape == (60, features.rows([given[0].uri]).shape[1])
    named = [e.label for e in given if e.bucket is Bucket.TRAIN]
    assert (found.labels == 0).sum() == named.count("3")
    assert (found.labels == -1).sum() == 60 - named.count("3") - named.count("7")


def standing_quota(world: LearningWorld, **gate: int) -> Quota:
    latest = world.project.snapshots.latest()
    assert latest is not None
    config = world.config.model_copy(update={"gate": world.config.gate.model_copy(update=gate)})
    return quota_of(config, world.project.snapshot(latest.snapshot).tasks, world.project)


def test_the_quota_knows_what_the_next_verdict_and_a_bound_lack(world: LearningWorld) -> None:
    quota = standing_quota(world)
    assert (quota.labels, quota.random) == (100, 40)
    assert quota.lacking == {Bucket.TEST: world.config.gate.min_test_labels - 40, Bucket.AUDIT: 59}
    assert quota.ahead == world.config.retrain.after - 60
    assert standing_quota(world, min_test_labels=40).lacking == {Bucket.AUDIT: 59}


def test_a_retrain_that_was_held_is_counted_from_as_the_planner_does(tmp_path: Path) -> None:
    """Else the share would fall back just when it was too small."""
    world = LearningWorld(tmp_path, images=400, config={"retrain": {"after": 100}})
    train = world.uris(Bucket.TRAIN)
    first = world.label([*train[:110], *world.uris(Bucket.TEST)[:30]])
    assert standing_quota(world).ahead == 0
    run = world.project.runs.start("retrain", snapshot=first, config="", attempt=1, worker="w")
    world.label(train[:150], wrong={train[0]: "another"})
    assert standing_quota(world).ahead == 0  # still running
    world.project.runs.end(run, "hold", ("needs 50 test labels",))
    assert standing_quota(world).ahead == 100 - 41  # 40 new ones and a changed one
    world.configure({"retrain": {"automatic": False}})
    assert standing_quota(world).ahead is None


def test_the_order_says_which_strategy_made_it_and_why(world: LearningWorld) -> None:
    live = world.live()
    assert score(world.context, world.project, live.name) > 100
    found = world.project.scores.newest(live.name)
    assert found is not None
    assert found.policy.startswith("uncertain-herding: what stands for most images of which the model is unsure")
    assert {p.why for p in found.places} == {"quota", "uncertain-herding", "rest"}
    buckets = {p.uri: world.project.catalogue.images[p.uri].bucket for p in found.places}
    assert all((buckets[p.uri] in JUDGING) is (p.why == "quota") for p in found.places)
    assert all(p.blind for p in found.places if p.why == "quota")
    assert not {p.uri for p in found.places} & world.labels.keys()


def test_before_there_is_a_model_the_order_covers_the_pool(tmp_path: Path) -> None:
    world = LearningWorld(tmp_path, images=80)
    score(world.context, world.project, COLD_START)
    found = world.project.scores.newest(COLD_START)
    assert found is not None
    assert found.policy == "herding: what stands for most other images (no model yet)"
    first = [p for p in found.places if not p.blind][:10]
    assert len({world.truth[p.uri] for p in first}) >= 6  # of ten digits


def test_a_person_may_ask_for_another_order(tmp_path: Path) -> None:
    world = LearningWorld(tmp_path, images=80, config={"queue": {"policy": "random"}})
    score(world.context, world.project, COLD_START)
    found = world.project.scores.newest(COLD_START)
    assert found is not None
    assert found.policy == "random: at random (as configured)"
