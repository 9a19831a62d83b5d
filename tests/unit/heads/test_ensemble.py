from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from labelloop.errors import NotEnoughLabelsError, SettingsError
from labelloop.model.classifier import load_classifier
from labelloop.model.ensemble import EnsembleHead, tempered
from labelloop.records.arrays import Floats
from retrain_worker.heads import ensemble, members
from retrain_worker.heads.ensemble import FOLDS, EnsembleRecipe, FittedEnsemble, cross_fit_ensemble, fit_ensemble
from retrain_worker.heads.logistic import codes
from retrain_worker.heads.members import MEMBERS, MemberTask

CLASSES = ("mole", "ant", "zebra")
QUICK = ("svm", "lightgbm")
SOME = EnsembleRecipe(members=QUICK)


def blobs(n: int, d: int = 12, *, spread: float = 1.0, seed: int = 0) -> tuple[Floats, list[str], list[str]]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(len(CLASSES), d))
    truth = np.arange(n) % len(CLASSES)
    features = 5 + centres[truth] + spread * rng.normal(size=(n, d))
    return features.astype(np.float32), [CLASSES[k] for k in truth], [f"g{seed}-{i}" for i in range(n)]


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Fewer trees than in earnest: seconds, not a minute."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"FOREST": 40, "FOREST_STEP": 5, "MOST": 20}.items():
            patch.setattr(members, name, value)
        yield


@pytest.fixture(scope="module")
def whole() -> FittedEnsemble:
    features, labels, groups = blobs(60)
    return fit_ensemble(features, labels, groups, classes=CLASSES, recipe=EnsembleRecipe(budget_s=1e9))


def test_all_six_take_part_in_the_order_of_their_cost(whole: FittedEnsemble) -> None:
    assert whole.members == tuple(MEMBERS)
    assert whole.left_out == {}
    assert list(whole.seconds) == list(MEMBERS)
    assert whole.size == len(whole.head.dump())


def test_what_is_kept_answers_as_what_was_fitted(whole: FittedEnsemble) -> None:
    features, _, _ = blobs(60, seed=1)
    again = load_classifier(whole.head.dump(), CLASSES)
    assert isinstance(again, EnsembleHead)
    np.testing.assert_allclose(again.probabilities(features), whole.head.probabilities(features), rtol=0, atol=1e-7)
    assert again.dump() == whole.head.dump()


def test_learns_what_can_be_learned_in_the_given_order_of_classes(whole: FittedEnsemble) -> None:
    features, labels, _ = blobs(90, seed=1)
    found = whole.head.probabilities(features)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert whole.head.labels == CLASSES
    assert (found.argmax(axis=1) == codes(labels, CLASSES)).mean() > 0.9


def test_out_of_fold_answers_are_probabilities_of_every_row(whole: FittedEnsemble) -> None:
    assert whole.oof.shape == (60, 3)
    assert whole.oof.dtype == np.float32
    np.testing.assert_allclose(whole.oof.sum(axis=1), 1, rtol=1e-5)


def test_same_data_and_seed_same_bytes_on_any_number_of_threads(whole: FittedEnsemble) -> None:
    features, labels, groups = blobs(60)
    recipe = EnsembleRecipe(members=whole.members, threads=3)
    again = fit_ensemble(features, labels, groups, classes=CLASSES, recipe=recipe)
    assert again.head.dump() == whole.head.dump()
    np.testing.assert_array_equal(again.oof, whole.oof)
    other = fit_ensemble(features, labels, groups, classes=CLASSES, recipe=replace(SOME, seed=1))
    assert other.head.members[1].model != whole.head.members[1].model


def test_out_of_fold_never_sees_the_row_it_judges() -> None:
    """Random labels: honest figures are at chance, though a fit knows every row by heart."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(150, 40)).astype(np.float32)
    labels = [CLASSES[k] for k in rng.integers(0, 3, 150)]
    fitted = fit_ensemble(features, labels, [f"r{i}" for i in range(150)], classes=CLASSES, recipe=SOME)
    truth = codes(labels, CLASSES)
    assert (fitted.head.probabilities(features).argmax(axis=1) == truth).mean() > 0.9
    assert (fitted.oof.argmax(axis=1) == truth).mean() < 0.5
    assert fitted.head.temperature > 1  # and calibration found out that nothing was learned


def test_duplicates_never_stand_in_two_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row three times: a fit that knows two of them would know the third."""
    features, labels, _ = blobs(30)
    seen: list[set[bytes]] = []

    def spy(part: MemberTask) -> bytes:
        seen.append({row.tobytes() for row in part.features})
        return MEMBERS["svm"](part)

    monkeypatch.setattr(ensemble, "MEMBERS", {**MEMBERS, "lightgbm": spy})
    groups = [f"g{i}" for i in range(30)] * 3
    recipe = EnsembleRecipe(members=("lightgbm",))
    fit_ensemble(np.tile(features, (3, 1)), labels * 3, groups, classes=CLASSES, recipe=recipe)
    *folds, everything = seen
    hidden = [everything - rows for rows in folds]
    assert len(folds) == FOLDS
    assert sum(map(len, hidden)) == len(everything) == 30, "a row that is hidden is hidden with its duplicates"


def test_a_label_of_a_row_does_not_move_its_own_out_of_fold_answer() -> None:
    features, labels, groups = blobs(60)
    changed: list[str | None] = [*labels]
    changed[7] = "ant" if labels[7] != "ant" else "mole"
    first, second = (
        ensemble._LabelTable.of(features, codes(column, CLASSES), groups, 3) for column in (labels, changed)
    )
    answers = [t.out_of_fold(ensemble._fits(t, t.hidden, "svm", SOME, lambda: None)) for t in (first, second)]
    np.testing.assert_array_equal(answers[0][7], answers[1][7])
    others = first.folds != first.folds[7]
    assert np.abs(answers[0][others] - answers[1][others]).max() > 0.01


def test_arms_are_fitted_as_the_head_was() -> None:
    features, labels, groups = blobs(60, spread=2.0)
    fitted = fit_ensemble(features, labels, groups, classes=CLASSES, recipe=SOME)
    fewer: list[str | None] = [*labels[:45], *[None] * 15]
    same, less = cross_fit_ensemble(features, [labels, fewer], groups, classes=CLASSES, recipe=SOME)
    np.testing.assert_allclose(tempered(same, fitted.head.temperature), fitted.oof, atol=1e-5)
    assert less.shape == same.shape
    assert np.abs(less - same).max() > 0.01
    assert cross_fit_ensemble(features, [], groups, classes=CLASSES, recipe=SOME) == []


def test_arms_need_named_members() -> None:
    features, labels, groups = blobs(12)
    with pytest.raises(SettingsError, match="name them"):
        cross_fit_ensemble(features, [labels], groups, classes=CLASSES, recipe=EnsembleRecipe())


@pytest.mark.parametrize("names", [(), ("svm", "perceptron")])
def test_unknown_members_are_refused(names: tuple[str, ...]) -> None:
    features, labels, groups = blobs(12)
    with pytest.raises(SettingsError, match="random_forest"):
        fit_ensemble(features, labels, groups, classes=CLASSES, recipe=EnsembleRecipe(members=names))


def test_rows_without_a_label_are_answered_and_not_learned() -> None:
    features, labels, groups = blobs(60)
    some: list[str | None] = [label if i % 2 else None for i, label in enumerate(labels)]
    fitted = fit_ensemble(features, some, groups, classes=CLASSES, recipe=SOME)
    np.testing.assert_allclose(fitted.oof.sum(axis=1), 1, rtol=1e-5)


# --- time


def fitted_by(clock_step: float, budget_s: float) -> FittedEnsemble:
    """The clock moves on by the step each time it is looked at."""
    ticks = itertools.count()
    recipe = EnsembleRecipe(budget_s=budget_s, clock=lambda: next(ticks) * clock_step)
    features, labels, groups = blobs(24)
    return fit_ensemble(features, labels, groups, classes=CLASSES, recipe=recipe)


def test_without_time_the_first_member_is_fitted_all_the_same() -> None:
    fitted = fitted_by(1.0, 0.0)
    assert fitted.members == ("svm",)
    assert list(fitted.left_out) == list(MEMBERS)[1:]
    assert fitted.left_out["lightgbm"] == "the budget of 0 s did not suffice"


def test_whoever_is_not_done_in_time_is_left_out_and_named() -> None:
    fitted = fitted_by(1.0, 115.0)
    assert fitted.members == ("svm", "lightgbm")
    assert list(fitted.left_out) == ["random_forest", "xgboost_shallow", "xgboost_medium", "xgboost_deep"]
    assert 0 < fitted.seconds["random_forest"] < 115
    assert fitted.seconds["xgboost_deep"] <= 2, "nothing is begun when time is up"


def test_a_recorded_fit_is_made_again_however_slow_the_machine() -> None:
    fast = fitted_by(1.0, 115.0)
    features, labels, groups = blobs(24)
    ticks = itertools.count()
    recipe = EnsembleRecipe(budget_s=0.0, members=fast.members, clock=lambda: next(ticks) * 1e6)
    again = fit_ensemble(features, labels, groups, classes=CLASSES, recipe=recipe)
    assert again.head.dump() == fast.head.dump()


# --- few labels


@pytest.mark.parametrize("each", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_two_classes_with_few_labels(each: int, seed: int) -> None:
    """Folds without a class, and folds without any label, are all there."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(2 * each, 8)).astype(np.float32)
    features[:each] += 3
    labels, groups = ["b"] * each + ["a"] * each, [f"s{seed}-{i}" for i in range(2 * each)]
    fitted = fit_ensemble(features, labels, groups, classes=("b", "a"), recipe=SOME)
    for found in (fitted.oof, fitted.head.probabilities(features)):
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert (fitted.head.probabilities(features)[:, 0] > 0.5).tolist() == [True] * each + [False] * each


def test_all_six_with_three_labels_of_two_classes() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(6, 8)).astype(np.float32)
    fitted = fit_ensemble(features, list("aaabbb"), list("uvwxyz"), classes=("a", "b"), recipe=EnsembleRecipe(1e9))
    assert fitted.members == tuple(MEMBERS)
    again = load_classifier(fitted.head.dump(), ("a", "b"))
    assert np.isfinite(again.probabilities(features)).all()


def test_twenty_classes_with_a_few_each() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(20, 16)) * 3
    truth = np.arange(80) % 20
    features = (centres[truth] + rng.normal(size=(80, 16))).astype(np.float32)
    names = tuple(f"c{k:02d}" for k in range(20))
    labels, groups = [names[k] for k in truth], [f"t{i}" for i in range(80)]
    fitted = fit_ensemble(features, labels, groups, classes=names, recipe=EnsembleRecipe(members=("svm",)))
    assert (fitted.oof.argmax(axis=1) == truth).mean() > 0.6


def test_a_class_whose_labels_share_one_fold_is_unknown_there() -> None:
    features, labels, groups = blobs(60)
    known = [label if label != "zebra" else "ant" for label in labels]
    known[3] = "zebra"
    fitted = fit_ensemble(features, known, groups, classes=CLASSES, recipe=SOME)
    assert fitted.oof[3, 2] == 0
    assert np.isfinite(fitted.oof).all()
    assert fitted.head.probabilities(features)[3, 2] > 0


def test_a_class_without_labels_never_answers() -> None:
    features, labels, groups = blobs(30)
    known = [label if label != "zebra" else None for label in labels]
    fitted = fit_ensemble(features, known, groups, classes=CLASSES, recipe=SOME)
    assert (fitted.oof[:, 2] == 0).all()
    assert (fitted.head.probabilities(features)[:, 2] == 0).all()


def test_one_class_is_not_enough() -> None:
    features, _, groups = blobs(10)
    with pytest.raises(NotEnoughLabelsError):
        fit_ensemble(features, ["ant"] * 10, groups, classes=CLASSES, recipe=SOME)


def test_labels_the_backbone_saw_do_not_sharpen() -> None:
    features, labels, groups = blobs(60, spread=0.1)
    trusted = np.zeros(60, dtype=np.bool_)
    held = fit_ensemble(features, labels, groups, classes=CLASSES, recipe=SOME, trusted=trusted)
    free = fit_ensemble(features, labels, groups, classes=CLASSES, recipe=SOME)
    assert held.head.temperature >= 1 > free.head.temperature
