"""A refresh on real stores: what each arm learned from, which version bounds summed-up losses, what is registered."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelloop.code import code_version
from labelloop.errors import ConflictError, NotEnoughLabelsError
from labelloop.records.evidence import Comparison, Evaluation, Outcome, Verdict
from labelloop.records.images import Example, Split
from labelloop.records.versions import Version
from labelloop.store.configs import keep_config
from retrain_worker import refresh
from retrain_worker.refresh import CHECK_ROWS, DEPLOY_TRIES, label_sets, next_reference
from tests.unit.worlds.learning import LearningWorld

STEPS = (60, 80, 100)  # train labels at each refresh
TEST = 30


def grown(folder: Path, steps: Collection[int] = STEPS, **config: Any) -> LearningWorld:
    """A project after so many refreshes that went live."""
    world = LearningWorld(folder, images=300, config=config)
    for n in steps:
        world.label([*world.uris(Split.TEST)[:TEST], *world.uris(Split.TRAIN)[:n]])
        assert world.refresh(newest(world)).verdict.outcome is Outcome.PROMOTE
    return world


def newest(world: LearningWorld) -> str:
    latest = world.project.snapshots.latest()
    assert latest is not None
    return latest.snapshot


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> LearningWorld:
    """Nobody changes it."""
    return grown(tmp_path_factory.mktemp("world"))


def more(world: LearningWorld, n: int = 10) -> str:
    """A snapshot with so many more train labels."""
    return world.label([u for u in world.uris(Split.TRAIN) if u not in world.labels][:n])


def uris(examples: Collection[Example] | None) -> set[str]:
    return {e.uri for e in examples or () if e.bucket is Split.TRAIN}


# --- what is compared


def test_each_version_names_its_parent_and_what_bounds_summed_up_losses(world: LearningWorld) -> None:
    versions = [world.project.registry.version(f"v{n}") for n in (1, 2, 3)]
    assert [v.parent for v in versions] == [None, "v1", "v2"]
    assert [v.reference for v in versions] == [None, "v1", "v1"]
    assert {v.kind for v in versions} == {"refresh"}
    last = versions[-1]
    assert (last.snapshot, last.config, last.code) == (newest(world), world.config.hash, code_version())
    assert [d.by for d in world.project.registry.deployments()] == ["refresh"] * 3
    assert world.project.registry.deployments()[-1].why == last.verdict.reasons[0]


def test_each_arm_learns_from_the_labels_of_its_version(world: LearningWorld) -> None:
    project, live = world.project, world.live()
    sets = label_sets(project, project.snapshot(newest(world)), live, project.features(live.backbone))
    train = world.uris(Split.TRAIN)
    assert uris(sets.reference) == set(train[: STEPS[0]])  # of v1
    assert uris(sets.champion) == uris(sets.grown) == set(train[: STEPS[-1]])
    assert label_sets(project, project.snapshot(newest(world)), None, project.features(live.backbone)).champion is None


def test_small_losses_are_summed_up_against_the_reference(world: LearningWorld) -> None:
    """Not switched off: with a third version there is a reference that is not the champion, and it is compared."""
    found = [world.project.registry.version(f"v{n}").evaluation for n in (1, 2, 3)]
    assert [e.comparison and e.comparison.n for e in found] == [None, STEPS[1], STEPS[2]]
    assert [e.reference and e.reference.n for e in found] == [None, None, STEPS[2]]
    assert [e.test_n for e in found] == [TEST] * 3


def test_a_new_label_is_asked_of_the_champion_before_it_is_learned(world: LearningWorld) -> None:
    contradiction = world.live().evaluation.contradiction
    assert contradiction is not None
    assert (contradiction.n, contradiction.batches) == (20, 2.0)  # twenty labels more, a refresh after ten


def proven(low: float) -> Comparison:
    return Comparison("labels", 100, 0.8, 0.82, 0.02, low, 0.05, 3)


@pytest.mark.parametrize(
    ("champion", "comparison", "reference", "expected"),
    [
        (None, 0.01, None, None),
        ("v7", -0.01, None, "v7"),  # a sum begins with the champion
        ("v7", 0.0, None, "v7"),  # nothing is proven
        ("v7", 0.01, None, None),  # better, and proven: the new version is the next reference
        ("v7 since v2", -0.01, -0.02, "v2"),
        ("v7 since v2", 0.01, -0.02, "v2"),  # better than the champion, and not yet than what all is measured against
        ("v7 since v2", -0.01, 0.01, None),
    ],
)
def test_the_reference_moves_on_proof_alone(
    world: LearningWorld, champion: str | None, comparison: float, reference: float | None, expected: str | None
) -> None:
    version: Version | None = None
    if champion:
        name, _, since = champion.partition(" since ")
        version = replace(world.live(), number=int(name[1:]), reference=since or None)
    evaluation = replace(
        Evaluation("refresh", 10, 10, ("a", "b")), comparison=proven(comparison),
        reference=None if reference is None else proven(reference),
    )  # fmt: skip
    backbone = world.project.registry.backbone(world.live().backbone)
    assert next_reference(version, backbone, evaluation) == expected
    assert next_reference(version, replace(backbone, id="another"), evaluation) is None


# --- what is registered


def test_what_is_stored_to_check_a_backend_by_is_what_the_head_says(world: LearningWorld) -> None:
    live, registry = world.live(), world.project.registry
    features = np.array(live.check_features, dtype=np.float32)
    assert len(features) == CHECK_ROWS
    np.testing.assert_allclose(registry.head(live).probabilities(features), live.check_probabilities, atol=1e-6)
    kept = world.project.features(live.backbone)
    np.testing.assert_array_equal(features, kept.rows(list(kept.index.places)[:CHECK_ROWS]))
    assert live.recipe["seed"] == world.config.seed


def test_nothing_is_registered_of_a_refresh_that_is_held(tmp_path: Path) -> None:
    world = grown(tmp_path, STEPS[:1])
    held = world.refresh(newest(world))
    assert (held.verdict.outcome, held.version, held.again) == (Outcome.HOLD, None, False)
    assert held.verdict.reasons[0] == "no new labels since the champion"
    assert [v.name for v in world.project.registry.versions()] == ["v1"]


def test_a_pause_keeps_the_version_and_the_wish(tmp_path: Path) -> None:
    """Learning was paused while the head was fitted: the same is run again afterwards."""
    world = grown(tmp_path, STEPS[:1])
    snapshot = more(world)
    world.project.registry.pauses.pause(by="ann", why="labels under review")
    judged = world.refresh(snapshot)
    assert (judged.verdict.outcome, judged.again, judged.version) == (Outcome.HOLD, True, "v2")
    assert judged.verdict.reasons[0].startswith("not deployed, learning is paused by ann")
    assert judged.verdict.reasons[1].startswith("trained on 10 new or changed labels")
    assert world.live().name == "v1"
    world.project.registry.pauses.resume()
    assert world.refresh(snapshot).version == "v3"
    assert world.live().name == "v3"


def promoting(world: LearningWorld, monkeypatch: pytest.MonkeyPatch, times: int) -> list[str]:
    """Somebody promotes v1 and v2 in turn, whenever a verdict has been found; who was live then."""
    judge, champions = refresh.judge, list[str]()

    def overtaken(*args: Any) -> Verdict:
        champions.append(world.live().name)
        if len(champions) <= times:
            other = "v1" if world.live().name == "v2" else "v2"
            world.project.registry.deploy(other, expected=champions[-1], action="promote", by="ann", why="")
        return judge(*args)

    monkeypatch.setattr(refresh, "judge", overtaken)
    return champions


def test_who_was_overtaken_is_judged_again_against_the_new_champion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = grown(tmp_path, STEPS[:2])
    champions = promoting(world, monkeypatch, DEPLOY_TRIES - 1)
    judged = world.refresh(more(world))
    assert champions == ["v2", "v1", "v2"]
    assert (world.live().name, world.live().parent) == (judged.version, "v2")
    assert judged.evaluation.new_labels == 10
    assert [v.name for v in world.project.registry.versions()] == ["v1", "v2", "v3"]


def test_who_is_always_overtaken_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = grown(tmp_path, STEPS[:2])
    champions = promoting(world, monkeypatch, 99)
    with pytest.raises(ConflictError):
        world.refresh(more(world))
    assert len(champions) == DEPLOY_TRIES
    assert [v.name for v in world.project.registry.versions()] == ["v1", "v2"]


# --- what is said


def test_labelled_images_without_features_are_named(tmp_path: Path) -> None:
    world = grown(tmp_path, STEPS[:1])
    lost = world._take(3)[0]  # no worker has seen it yet
    judged = world.refresh(world.label([lost, *world.uris(Split.TRAIN)[60:80]]))
    assert judged.without == (lost,)
    assert judged.evaluation.labels == 80
    assert judged.verdict.reasons[-1].startswith(
        "learned without 1 labelled images that have no features yet: task 300"
    )


def test_too_few_labels_say_which_images_are_waited_for(tmp_path: Path) -> None:
    world = LearningWorld(tmp_path, images=60)
    lost = world._take(1)
    one = [u for u in world.uris(Split.TRAIN) if world.truth[u] == "3"]
    with pytest.raises(NotEnoughLabelsError, match=r"^needs two classes with a label each: 3 \d; learned without 1 "):
        world.refresh(world.label([*one[:3], *lost]))
    world.labels.clear()
    with pytest.raises(NotEnoughLabelsError, match=r"each: 3 3$"):
        world.refresh(world.label(one[:3]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"head": {"pool": False}}, ("unlabelled images",)),
        ({"weights": {"classes": {"3": 2.0}}}, ("weights",)),
        ({"gate": {"tolerance": 0.03}}, ()),
    ],
)
def test_settings_that_change_what_a_head_learns_are_named(
    tmp_path: Path, change: dict[str, Any], told: tuple[str, ...]
) -> None:
    world = grown(tmp_path, STEPS[:1])
    keep_config(world.project.store, world.config)  # as every run does
    world.configure(change)
    evaluation = world.refresh(more(world)).evaluation
    assert evaluation.head_changed == told
    assert evaluation.artefact is None  # the kind of the head is the same
