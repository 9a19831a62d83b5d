"""A search: settings proposed, trials run and resumed, judged on the validation part alone, the winner applied."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from labelloop.config.project import ProjectConfig, parse_config
from labelloop.errors import SettingsError
from labelloop.queue.jobs import TRIAL
from labelloop.records.images import Split
from labelloop.store.lr_curves import kept, smoothed, steepest
from labelloop.store.studies import (
    ATTEMPTS,
    Search,
    Study,
    StudyStore,
    Trial,
    applied,
    best,
    merged,
    missing,
    parse_search,
)
from operations.models.tune import StudyResults, apply, as_yaml, differences
from retrain_worker.training.fit import FineTune
from retrain_worker.tuning import trial as module
from retrain_worker.tuning.lr_finder import HIGH, LOW, find
from retrain_worker.tuning.search import TrialProposal
from retrain_worker.tuning.trial import run_trial
from sync.studies import Studies
from tests.unit.worlds.learning import LearningWorld
from tests.unit.worlds.operations import OpsWorld

ROOT = Path(__file__).parents[3]
SMALL = {
    "backbone": {"name": "small_cnn", "image_size": 16, "options": {"filters": [4, 8], "dense": 16, "dropout": 0.0}},
    "retrain": {"epochs": 2, "learning_rate": 0.01, "backbone_rate": 1.0, "validation": 0.3, "warm_head": False},
}
RATES = {"retrain.learning_rate": {"real": [0.001, 0.1], "log": True}, "backbone.options.filters.0": {"choice": [4, 8]}}


def search(**changes: Any) -> Search:
    return parse_search({"space": RATES, "trials": 3, "pruner": "none", **changes}, "test")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> LearningWorld:
    world = LearningWorld(tmp_path_factory.mktemp("world"), images=250, config=SMALL)
    world.label([*world.uris(Split.TRAIN), *world.uris(Split.TEST)])
    return world


def begun(world: LearningWorld, asked: Search) -> tuple[StudyStore, Study]:
    studies = StudyStore(world.project.store)
    latest = world.project.snapshots.latest()
    assert latest is not None
    return studies, studies.begin(asked, snapshot=latest.snapshot, config=world.config, by="ann")


# --- what may be asked


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"space": {}}, "names at least one setting"),
        ({"space": {"gate.tolerance": {"choice": [1]}}}, "only settings of backbone: and retrain: can"),
        ({"space": {"retrain.epochs": {}}}, "give one of choice"),
        ({"space": {"retrain.epochs": {"choice": [1], "integer": [1, 2]}}}, "give one of choice"),
        ({"space": {"retrain.epochs": {"integer": [5, 2]}}}, "must not lie above"),
        ({"space": {"retrain.learning_rate": {"real": [0, 1], "log": True}}}, "above 0"),
        ({"sampler": "grid", "space": {"retrain.epochs": {"integer": [1, 2]}}}, "grid needs choice"),
        ({"space": {"retrain.epochs": {"choice": [1]}}, "tirals": 3}, "Extra inputs"),
    ],
)
def test_a_wrong_search_is_told_what_is_wrong(data: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        parse_search(data, "test")


def test_settings_that_do_not_fit_are_refused_before_any_trial(world: LearningWorld) -> None:
    with pytest.raises(SettingsError, match="no place 7 in a list of 2"):
        begun(world, search(space={"backbone.options.filters.7": {"choice": [1]}}))
    with pytest.raises(SettingsError, match=r"retrain\.epochs"):
        begun(world, search(space={"retrain.epochs": {"choice": [1, -1]}}))
    with pytest.raises(SettingsError, match=r"retrain\.validation"):
        begun(world, search(base={"retrain": {"validation": 0}}))


@pytest.mark.parametrize("path", sorted((ROOT / "configs/tune").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_presets_can_begin(path: Path, world: LearningWorld) -> None:
    _, study = begun(world, parse_search(yaml.safe_load(path.read_text()), path.name))
    proposal = TrialProposal(study.rules, [], 0, None)
    assert set(proposal.params) == set(study.rules.space)
    study.config_with(proposal.params)


def test_a_grid_goes_through_all_points() -> None:
    grid = search(sampler="grid", space={"retrain.epochs": {"choice": [1, 2]}, "retrain.ema": {"choice": [0.0, 0.9]}})
    points = [TrialProposal(grid, [], n, None).params for n in range(grid.count)]
    assert points == [
        {"retrain.epochs": e, "retrain.ema": d} for e in (1, 2) for d in (0.0, 0.9)
    ]  # fmt: skip


def test_settings_by_dotted_names() -> None:
    config = {"backbone": {"options": {"filters": [1, 2]}}, "retrain": {"epochs": 1}}
    changed = applied(config, {"backbone.options.filters.1": 5, "retrain.epochs": 3, "backbone.name": "x"})
    assert changed == {"backbone": {"options": {"filters": [1, 5]}, "name": "x"}, "retrain": {"epochs": 3}}
    assert config["backbone"] == {"options": {"filters": [1, 2]}}
    assert merged({"a": {"b": 1, "options": {"x": 1}}}, {"a": {"options": {"y": 2}}}) == {
        "a": {"b": 1, "options": {"y": 2}}
    }


# --- what is proposed


def ended(number: int, accuracy: float, rate: float, *, state: str = "complete") -> Trial:
    params = {"retrain.learning_rate": rate, "backbone.options.filters.0": 4}
    return Trial(number, params, state=state, accuracy=accuracy, loss=1.0, curve=((accuracy, 1.0),) * 3)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_proposal_is_a_function_of_what_has_ended(sampler: str) -> None:
    asked = search(sampler=sampler)
    done = [ended(n, 0.5 + n / 100, 0.01) for n in range(12)]
    assert TrialProposal(asked, done, 12, None).params == TrialProposal(asked, done, 12, None).params
    assert TrialProposal(asked, done, 12, None).params != TrialProposal(asked, done, 13, None).params
    assert TrialProposal(asked, done, 12, {"retrain.learning_rate": 0.05, "backbone.options.filters.0": 8}).params == {
        "retrain.learning_rate": 0.05, "backbone.options.filters.0": 8,
    }  # fmt: skip


def test_tpe_goes_where_it_was_good() -> None:
    asked = search(space={"retrain.learning_rate": {"real": [0.001, 0.1], "log": True}})
    done = [
        Trial(n, {"retrain.learning_rate": rate}, state="complete", accuracy=0.9 if rate > 0.03 else 0.3, loss=1.0)
        for n, rate in enumerate([0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.06, 0.08, 0.09] * 2)
    ]
    proposed = [TrialProposal(asked, done, 20 + n, None).params["retrain.learning_rate"] for n in range(10)]
    assert sum(rate > 0.02 for rate in proposed) >= 8


def test_the_median_ends_what_is_hopeless() -> None:
    done = [ended(n, 0.8, 0.01) for n in range(6)]
    asked = search(pruner="median")
    bad, good = TrialProposal(asked, done, 6, None), TrialProposal(asked, done, 6, None)
    assert [bad.hopeless(1, 0.1), bad.hopeless(2, 0.1)] == [False, True]
    assert [good.hopeless(1, 0.9), good.hopeless(2, 0.9)] == [False, False]
    assert not TrialProposal(search(), done, 6, None).hopeless(2, 0.0)


def test_the_best_is_complete_accurate_and_sure() -> None:
    trials = [ended(0, 0.8, 0.1), ended(1, 0.9, 0.1), ended(2, 0.95, 0.1, state="pruned")]
    assert best(trials) == trials[1]
    assert best([*trials, replace(trials[1], number=3, loss=0.5)]) == replace(trials[1], number=3, loss=0.5)
    assert best([]) is None


# --- what is run


def test_a_trial_learns_and_is_judged_without_test_or_audit_images(world: LearningWorld) -> None:
    studies, study = begun(world, search())
    world.images.read_uris.clear()
    found = run_trial(world.context, world.project, study.name, 0, "w")
    assert (found.state, found.attempt, found.worker, len(found.curve)) == ("complete", 1, "w", 2)
    assert found.accuracy == max(a for a, _ in found.curve)
    assert found.figures["parameters"] > 100
    assert found.figures["bytes"] > 400
    assert set(world.images.read_uris) <= set(world.uris(Split.TRAIN))
    assert run_trial(world.context, world.project, study.name, 0) == found
    assert missing(study, studies.trials(study.name)) == [1, 2]


def test_a_killed_trial_goes_on_with_the_same_settings(world: LearningWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    studies, study = begun(world, search(trials=2))
    whole = run_trial(world.context, world.project, study.name, 1)
    _, again = begun(world, search(trials=2))
    learn = FineTune._epoch

    def killed(run: FineTune, step: Any) -> None:
        if run.epochs:
            raise KeyboardInterrupt
        learn(run, step)

    with monkeypatch.context() as patch:
        patch.setattr(FineTune, "_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            run_trial(world.context, world.project, again.name, 1)
    begun_trial = studies.trial(again.name, 1)
    assert begun_trial is not None
    assert begun_trial.state == "running"
    found = run_trial(world.context, world.project, again.name, 1)
    assert found.attempt == 2
    assert (found.params, found.curve) == (whole.params, whole.curve)


def test_a_trial_that_always_fails_ends_as_failed(world: LearningWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    studies, study = begun(world, search())
    monkeypatch.setattr(module, "fit", lambda *_: 1 / 0)
    for _ in range(ATTEMPTS - 1):
        with pytest.raises(ZeroDivisionError):
            run_trial(world.context, world.project, study.name, 2)
    found = run_trial(world.context, world.project, study.name, 2)
    assert (found.state, found.why) == ("failed", "ZeroDivisionError: division by zero")
    studies.put(study.name, replace(found, number=1, state="running", attempt=ATTEMPTS))
    assert "its worker died" in run_trial(world.context, world.project, study.name, 1).why


def test_a_trial_that_was_believed_dead_changes_nothing(world: LearningWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """It froze in its first epoch, and another worker has run the trial meanwhile."""
    studies, study = begun(world, search(trials=1))
    learn, left, others = FineTune._epoch, ["a freeze"], list[Trial]()

    def frozen(run: FineTune, step: Any) -> None:
        if left:
            left.clear()
            others.append(run_trial(world.context, world.project, study.name, 0, "another"))
        learn(run, step)

    monkeypatch.setattr(FineTune, "_epoch", frozen)
    found = run_trial(world.context, world.project, study.name, 0, "frozen")
    assert (found.worker, found.attempt, found.state) == ("another", 2, "complete")
    assert studies.trial(study.name, 0) == others[0] == found


def test_of_two_who_begin_or_end_a_trial_one_does(world: LearningWorld) -> None:
    studies, study = begun(world, search())
    one, two = (Trial(0, {}, worker=w, started_at="t") for w in "ab")
    assert [studies.take(study.name, t) for t in (one, two)] == [True, False]
    again = replace(two, attempt=2)
    assert studies.take(study.name, again)
    assert not studies.take(study.name, replace(one, attempt=2))
    late = studies.end(study.name, replace(one, state="complete", accuracy=0.9))
    assert late == again
    ended_once = studies.end(study.name, replace(again, state="complete", accuracy=0.5))
    assert studies.end(study.name, replace(again, state="failed")) == ended_once == studies.trial(study.name, 0)
    assert not studies.take(study.name, replace(one, attempt=3))


def test_a_network_that_nobody_knows_fails_at_once_and_says_so(world: LearningWorld) -> None:
    _, study = begun(world, search(space={"backbone.name": {"choice": ["resnet1800"]}}))
    found = run_trial(world.context, world.project, study.name, 0)
    assert found.state == "failed"
    assert "neither built in" in found.why


def test_a_cancelled_search_ends_after_the_epoch(world: LearningWorld) -> None:
    studies, study = begun(world, search())
    studies.cancel(study.name)
    found = run_trial(world.context, world.project, study.name, 0)
    assert (found.state, len(found.curve)) == ("pruned", 1)
    assert missing(studies.get(study.name), []) == []


class Queued:
    """Takes jobs and runs none."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.running: list[str] = []  # by the heartbeats

    def enqueue(self, kind: Any, name: str, payload: dict[str, Any]) -> bool:
        assert kind is TRIAL
        assert set(payload) == {"project", "study", "number"}
        new = name not in self.ids
        self.ids.append(name)
        return new

    def active(self, _kind: Any, _project: str) -> list[str]:
        return self.running


def test_the_watcher_queues_what_is_missing_and_forgets_nothing(world: LearningWorld) -> None:
    for name in StudyStore(world.project.store).names():
        StudyStore(world.project.store).cancel(name)
    studies, study = begun(world, search())
    studies.put(study.name, ended(1, 0.5, 0.01))
    queue = Queued()
    watch = Studies(world.project.record, world.project.store, queue)  # type: ignore[arg-type]
    assert watch.turn(nudged=False)
    assert len(queue.ids) == 2
    assert not watch.turn(nudged=True)  # both wait already
    queue.running, queue.ids = list(queue.ids), []  # Redis was flushed, but their workers live
    assert not watch.turn(nudged=True)
    queue.running.clear()
    assert watch.turn(nudged=True)
    studies.put(study.name, ended(0, 0.5, 0.01))
    studies.put(study.name, ended(2, 0.5, 0.01))
    queue.ids.clear()
    assert not watch.turn(nudged=True)
    assert queue.ids == []


# --- what becomes of it


def test_the_winners_settings_as_a_piece_of_yaml() -> None:
    before = ProjectConfig().model_dump(mode="json")
    after = applied(before, {"retrain.learning_rate": 0.01, "backbone.name": "resnet18"})
    changes = differences(before, after)
    assert changes == {"backbone.name": "resnet18", "retrain.learning_rate": 0.01}
    assert yaml.safe_load(as_yaml(changes)) == {"backbone": {"name": "resnet18"}, "retrain": {"learning_rate": 0.01}}


# --- learning rates


def test_the_steepest_fall_is_found() -> None:
    rates = [10 ** (-6 + i / 16) for i in range(96)]
    losses = [
        2.0 if r < 1e-4 else max(0.2, 2.0 - 0.9 * (i - 32) / 16) if r < 1e-2 else 5.0 for i, r in enumerate(rates)
    ]
    found = steepest(rates, losses)
    assert found is not None
    assert 1e-4 <= found <= 1e-2
    assert steepest(rates, [1.0 + i for i in range(96)]) is None
    assert steepest([0.1, 0.2], [1, 2]) is None
    assert smoothed([3.0, 3.0, 3.0]) == pytest.approx([3.0, 3.0, 3.0])


def test_a_range_test_gives_a_rate_and_leaves_the_project_as_it_was(world: LearningWorld) -> None:
    before = [info.key for info in world.project.store.list("backbones/")]
    found = find(world.context, world.project, "curve", "ann")
    assert LOW < found["suggestion"] < HIGH
    assert [info.key for info in world.project.store.list("backbones/")] == before
    curve = kept(world.project.store, "curve")
    find(world.context, world.project, "curve", "bob")  # believed dead, and came back
    assert kept(world.project.store, "curve") == curve


def test_a_winner_takes_back_nothing_that_was_set_since_the_search_began() -> None:
    ops = OpsWorld()
    asked = search(base={"retrain": {"epochs": 9}}, space={"retrain.learning_rate": {"real": [0.001, 0.1]}})
    study = StudyStore(ops.store).begin(asked, snapshot="s", config=ops.record.config, by="ann")
    since = {"name": "pets", "retrain": {"cron": "0 3 * * *", "mix": 0.2, "augment": "light"}, "seed": 7}
    ops.deployment.projects.put(replace(ops.record, config=parse_config(since, "test")))
    won = Trial(0, {"retrain.learning_rate": 0.02}, "complete", accuracy=0.9)
    changed = apply(ops.deployment, ops.record, StudyResults(study, [won]), None)
    assert changed == {"retrain.epochs": 9, "retrain.learning_rate": 0.02}
    kept = ops.deployment.projects.get(ops.record.key).config
    retrain = {**since["retrain"], "epochs": 9, "learning_rate": 0.02}  # type: ignore[dict-item]
    assert kept == parse_config({**since, "retrain": retrain}, "test")
