from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from labelloop.model.head import Head
from labelloop.records.arrays import Floats
from labelloop.records.images import JUDGING, Split
from labelloop.records.versions import COLD_START
from labelloop.rules.acquisition import Quota
from labelloop.store.features import FeatureStore
from retrain_worker.evidence import history as standing
from retrain_worker.evidence.examples import examples_of
from retrain_worker.evidence.history import labelled_of, quota_of, situation_of, unlabelled
from retrain_worker.score import score
from tests.unit.worlds.learning import LearningWorld


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> LearningWorld:
    """Sixty train and forty test labels, and a live version."""
    world = LearningWorld(tmp_path_factory.mktemp("standing"), images=400, config={"queue": {"quota_most": 0.3}})
    world.refresh(world.label([*world.uris(Split.TRAIN)[:60], *world.uris(Split.TEST)[:40]]))
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

    def spy(_: FeatureStore, uris: Sequence[str]) -> Floats:
        asked.extend(uris)
        return np.asarray(rows(uris))

    monkeypatch.setattr(type(features), "rows", spy)
    found = unlabelled(world.project, features, given)
    assert found is not None
    assert len(found) == len(asked) == len(world.uris(Split.TRAIN)) - 60
    bucket = {u: world.project.catalogue.images[u].bucket for u in asked}
    assert set(bucket.values()) == {Split.TRAIN}
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


def test_a_head_that_takes_no_pool_learns_from_labels_alone(tmp_path: Path) -> None:
    """Unlabelled images still tell what a class without a label looks like."""
    world = LearningWorld(tmp_path, images=60, config={"head": {"pool": False}})
    world.refresh(world.label([u for u in world.uris(Split.TRAIN) if world.truth[u] != "7"]))
    live = world.live()
    assert live.recipe["pool"] == 0.0
    head = world.project.registry.head(live)
    assert isinstance(head, Head)
    assert head.novelty is not None


def test_doubts_are_judged_on_the_random_test_labels(world: LearningWorld) -> None:
    given, features = examples(world)
    head = world.project.registry.head(world.live())
    situation = situation_of(given, features, head, world.project)
    assert situation.has_model
    assert situation.doubts.n == len({e.group for e in given if e.bucket is Split.TEST}) == 40
    assert situation.doubts.auc is None or situation.doubts.auc > 0.5
    assert not situation_of(given, features, None, world.project).has_model


def test_labelled_images_reach_the_strategies_with_their_columns(world: LearningWorld) -> None:
    given, features = examples(world)
    found = labelled_of(given, features, ("3", "7"))
    assert found.features.shape == (60, features.rows([given[0].uri]).shape[1])
    named = [e.label for e in given if e.bucket is Split.TRAIN]
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
    assert quota.lacking == {Split.TEST: world.config.gate.min_test_labels - 40, Split.AUDIT: 59}
    assert quota.ahead == world.config.retrain.after - 60
    assert standing_quota(world, min_test_labels=40).lacking == {Split.AUDIT: 59}


def test_a_retrain_that_was_held_is_counted_from_as_the_planner_does(tmp_path: Path) -> None:
    """Else the share would fall back just when it was too small."""
    world = LearningWorld(tmp_path, images=400, config={"retrain": {"after": 100}})
    train = world.uris(Split.TRAIN)
    first = world.label([*train[:110], *world.uris(Split.TEST)[:30]])
    assert standing_quota(world).ahead == 0
    run = world.project.runs.start("retrain", snapshot=first, config="", attempt=1, worker="w")
    world.label(train[:150], wrong={train[0]: "another"})
    assert standing_quota(world).ahead == 0  # still running
    world.project.runs.end(run, "hold", ("needs 50 test labels",))
    assert standing_quota(world).ahead == 100 - 41  # 40 new ones and a changed one
    world.configure({"retrain": {"automatic": False}})
    assert standing_quota(world).ahead is None


def test_of_many_labelled_images_a_strategy_sees_a_sample_and_not_the_last_by_name(
    world: LearningWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, features = examples(world)
    train = sorted((e for e in given if e.bucket is Split.TRAIN), key=lambda e: e.uri)
    classes = tuple(sorted({e.label for e in train}))
    whole = labelled_of(given, features, classes)
    monkeypatch.setattr(standing, "LABELLED_MOST", 30)
    found, again = labelled_of(given, features, classes), labelled_of(given[::-1], features, classes)
    assert len(found.labels) == 30
    np.testing.assert_array_equal(found.features, again.features)
    rows = features.rows([e.uri for e in train])
    places = [int((rows == row).all(axis=1).argmax()) for row in found.features]
    assert min(places) < 10
    assert max(places) > 50
    assert len(whole.labels) == 60


def test_weak_classes_are_told_by_what_is_missed_out_of_fold_in_train(world: LearningWorld) -> None:
    version = world.live()
    found = version.evaluation.recognised
    train = Counter(world.truth[u] for u in world.labels if u in set(world.uris(Split.TRAIN)))
    assert {r.name: r.n for r in found} == {name: train[name] for name in version.labels}  # none of test
    right = version.evaluation.accuracy
    assert right is not None
    assert sum(r.right for r in found) == round(right * sum(r.n for r in found))


def test_a_model_all_of_whose_classes_were_dropped_is_none(tmp_path: Path) -> None:
    world = LearningWorld(tmp_path, images=600)
    known = [u for u in world.uris(Split.TRAIN) if world.truth[u] in {"3", "7"}]  # more than FEW of the gate
    world.refresh(world.label(known))
    world.configure({"label_map": {"3": None, "7": None}})
    live = world.live()
    assert set(live.labels) == {"3", "7"}
    assert score(world.context, world.project, live.name)
    found = world.project.scores.newest(live.name)
    assert found is not None
    assert found.policy.startswith("herding: ")
    assert all(place.label is None for place in found.places)


def test_the_order_says_which_strategy_made_it_and_why(world: LearningWorld) -> None:
    live = world.live()
    assert score(world.context, world.project, live.name) > 100
    found = world.project.scores.newest(live.name)
    assert found is not None
    assert found.policy.startswith("uncertain-herding: most representative of the images that the model is unsure of")
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
    assert found.policy == "herding: most representative of the other images (no model yet)"
    first = [p for p in found.places if not p.blind][:10]
    assert len({world.truth[p.uri] for p in first}) >= 6  # of ten digits


def test_a_person_may_ask_for_another_order(tmp_path: Path) -> None:
    world = LearningWorld(tmp_path, images=80, config={"queue": {"policy": "random"}})
    score(world.context, world.project, COLD_START)
    found = world.project.scores.newest(COLD_START)
    assert found is not None
    assert found.policy == "random: at random (as configured)"


def test_a_project_whose_classes_have_no_label_yet_looks_for_them_and_names_nothing_in_their_place(
    tmp_path: Path,
) -> None:
    world = LearningWorld(tmp_path, images=900)
    world.refresh(world.label([u for u in world.uris(Split.TRAIN) if world.truth[u] in set("012345")][:40]))
    live = world.live()
    assert live.evaluation.missing == tuple("6789")
    assert live.verdict.reasons[2].startswith("knows 6 of 10 classes: 6, 7, 8, 9 have too few labels")
    assert score(world.context, world.project, live.name)
    found = world.project.scores.newest(live.name)
    assert found is not None
    assert found.policy.startswith("new-classes: ")
    assert "4 classes with too few labels: 6, 7, 8, 9" in found.policy
    new = [place for place in found.places if world.truth[place.uri] in set("6789")]
    front = [world.truth[place.uri] in set("6789") for place in found.places if place.why == "new-classes"][:20]
    assert sum(front) > 12  # of the pool four of ten
    assert sum(place.label is not None for place in new) < 0.6 * len(new)  # else all, each of them wrong
    old = [place for place in found.places if world.truth[place.uri] in set("012345")]
    assert sum(place.label == world.truth[place.uri] for place in old) > 0.5 * len(old)
    world.refresh(world.label(world.uris(Split.TRAIN)[:120]))
    assert world.live().evaluation.missing == ()
    assert score(world.context, world.project, world.live().name)
    later = world.project.scores.newest(world.live().name)
    assert later is not None
    assert later.policy.startswith("uncertain-herding: ")
