from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from labelloop.errors import NotEnoughLabelsError
from labelloop.records.arrays import Floats
from retrain_worker.heads.logistic import (
    GRID,
    Ints,
    best_temperature,
    codes,
    cross_fit,
    fit_head,
    folds_of,
    hide,
    log_loss,
    mass_of,
    out_of_fold,
    rotate,
    softmax,
    solve,
)

CLASSES = ("a", "b", "c")


def blobs(n: int, d: int, *, spread: float = 1.0, seed: int = 0) -> tuple[Floats, list[str], list[str]]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(3, d))
    truth = rng.integers(0, 3, n)
    features = 5 + centres[truth] + spread * rng.normal(size=(n, d))
    return features.astype(np.float32), [CLASSES[k] for k in truth], [f"g{seed}-{i}" for i in range(n)]


@pytest.mark.parametrize("shape", [(30, 80), (80, 30), (40, 40)])
def test_rotation_is_exact(shape: tuple[int, int]) -> None:
    features, _, _ = blobs(*shape)
    found = rotate(features)
    np.testing.assert_allclose(found.rows @ found.basis * found.scale + found.mean, features, atol=1e-4)
    np.testing.assert_allclose(found.basis @ found.basis.T, np.eye(len(found.basis)), atol=1e-3)


@pytest.mark.parametrize("shape", [(40, 100), (200, 12)])
@pytest.mark.parametrize("strength", [0.1, 3.0])
def test_agrees_with_scikit_learn(shape: tuple[int, int], strength: float) -> None:
    features, labels, _ = blobs(*shape, spread=2.0)
    rotated = rotate(features)
    targets = codes(labels, CLASSES)
    ours = rotated.head(solve(rotated, mass_of(rotated, targets[None], 3), strength)[0], CLASSES, 1.0).probabilities(
        features
    )
    scaled = (features - rotated.mean) / rotated.scale
    theirs = LogisticRegression(C=1 / strength, tol=1e-8, max_iter=5000).fit(scaled, targets)
    np.testing.assert_allclose(ours, theirs.predict_proba(scaled), atol=0.01)


def test_members_solved_together_equal_members_solved_alone() -> None:
    features, labels, groups = blobs(90, 20, spread=2.0)
    rotated = rotate(features)
    members = hide(codes(labels, CLASSES), folds_of(groups))
    together = solve(rotated, mass_of(rotated, members, 3), 0.3)
    for k, member in enumerate(members):
        alone = solve(rotated, mass_of(rotated, member[None], 3), 0.3)[0]
        ours, theirs = _answers(rotated.rows, together[k]), _answers(rotated.rows, alone)
        np.testing.assert_allclose(ours, theirs, atol=0.02)


def _answers(rows: Floats, solution: Floats) -> Floats:
    return softmax(rows @ solution[:, :-1].T + solution[:, -1])


def test_out_of_fold_never_sees_the_row_it_judges() -> None:
    """Random labels: honest figures are at chance, though a fit of so many features knows every row by heart."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(300, 400)).astype(np.float32)
    labels = [CLASSES[k] for k in rng.integers(0, 3, 300)]
    fitted = fit_head(rotate(features), labels, [f"r{i}" for i in range(300)], classes=CLASSES, strength=0.01)
    truth = codes(labels, CLASSES)
    assert (fitted.head.probabilities(features).argmax(axis=1) == truth).mean() > 0.95
    assert (fitted.oof.argmax(axis=1) == truth).mean() < 0.45
    assert log_loss(fitted.oof, truth) < 1.3  # and calibration found out that nothing was learned


def test_a_wrong_label_of_a_row_does_not_move_its_own_out_of_fold_answer() -> None:
    features, labels, groups = blobs(60, 10)
    rotated = rotate(features)
    changed = list(labels)
    changed[7] = "a" if labels[7] != "a" else "b"
    first, second = cross_fit(rotated, [labels, changed], groups, classes=CLASSES, strength=0.1)
    np.testing.assert_allclose(first[7], second[7], atol=0.02)
    others = folds_of(groups) != folds_of(groups)[7]
    assert np.abs(first[others] - second[others]).max() > 0.02


def test_a_warm_start_changes_nothing_that_matters() -> None:
    features, labels, groups = blobs(120, 30, spread=2.0)
    rotated = rotate(features)
    fitted = fit_head(rotated, labels, groups, classes=CLASSES)
    fewer: list[str | None] = [*labels[:100], *[None] * 20]
    cold = cross_fit(rotated, [fewer], groups, classes=CLASSES, strength=fitted.strength)[0]
    warm = cross_fit(rotated, [fewer], groups, classes=CLASSES, strength=fitted.strength, start=fitted.folds)[0]
    np.testing.assert_allclose(cold, warm, atol=0.03)


def test_kept_strength_tries_only_its_neighbours() -> None:
    features, labels, groups = blobs(60, 10)
    tried = fit_head(rotate(features), labels, groups, classes=CLASSES, strength=GRID[3]).log_losses
    assert sorted(s for s, _ in tried) == sorted(GRID[2:5])
    edge = fit_head(rotate(features), labels, groups, classes=CLASSES, strength=GRID[0]).log_losses
    assert sorted(s for s, _ in edge) == sorted(GRID[:2])


def test_learns_what_can_be_learned() -> None:
    features, labels, groups = blobs(150, 20, spread=1.0)
    fitted = fit_head(rotate(features[:75]), labels[:75], groups[:75], classes=CLASSES)
    truth = codes(labels[75:], CLASSES)
    assert (fitted.head.probabilities(features[75:]).argmax(axis=1) == truth).mean() > 0.95


def test_same_input_same_bytes() -> None:
    features, labels, groups = blobs(60, 90)
    first, second = (fit_head(rotate(features), labels, groups, classes=CLASSES).head.dump() for _ in range(2))
    assert first == second


def test_a_class_whose_labels_share_one_fold_is_unknown_there() -> None:
    features, labels, groups = blobs(60, 10)
    known = [label if label != "c" else "a" for label in labels]
    fold = folds_of(groups)
    rare = int(np.flatnonzero(fold == 0)[0])
    known[rare] = "c"
    targets = codes(known, CLASSES)
    rotated = rotate(features)
    members = hide(targets, fold)
    logits = out_of_fold(rotated, solve(rotated, mass_of(rotated, members, 3), 0.1), members, fold)
    assert softmax(logits)[rare, 2] == 0
    assert np.isfinite(best_temperature(logits, targets))
    assert np.isfinite(fit_head(rotated, known, groups, classes=CLASSES).oof).all()


def test_a_class_without_labels_does_not_pull_at_the_others() -> None:
    features, labels, groups = blobs(60, 10, spread=2.0)
    known = [label if label != "c" else None for label in labels]
    rotated = rotate(features)
    three = cross_fit(rotated, [known], groups, classes=CLASSES, strength=1.0)[0]
    two = cross_fit(rotated, [known], groups, classes=CLASSES[:2], strength=1.0)[0]
    assert (three[:, 2] == 0).all()
    np.testing.assert_allclose(three[:, :2], two, atol=0.005)


def test_one_class_is_not_enough() -> None:
    features, _, groups = blobs(10, 4)
    with pytest.raises(NotEnoughLabelsError):
        fit_head(rotate(features), ["a"] * 10, groups, classes=CLASSES)


def test_equal_features_do_not_break_the_fit() -> None:
    fitted = fit_head(rotate(np.ones((6, 4), np.float32)), list("aaabbb"), list("uvwxyz"), classes=("a", "b"))
    np.testing.assert_allclose(fitted.head.probabilities(np.ones((1, 4), np.float32)), 0.5, atol=0.01)


@pytest.mark.parametrize("sharpness", [0.5, 3.0])
def test_temperature_undoes_wrong_sharpness(sharpness: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3000, 3)).astype(np.float32) * 2
    given: Ints = np.array([rng.choice(3, p=p / p.sum()) for p in softmax(logits).astype(float)])
    found = best_temperature((logits * np.float32(sharpness)).astype(np.float32), given)
    assert found == pytest.approx(sharpness, rel=0.12)


def test_labels_the_backbone_saw_do_not_sharpen() -> None:
    features, labels, groups = blobs(60, 10, spread=0.1)
    trusted = np.zeros(60, dtype=np.bool_)
    trusted[:5] = True
    assert fit_head(rotate(features), labels, groups, classes=CLASSES).head.temperature < 1
    held = fit_head(rotate(features), labels, groups, classes=CLASSES, trusted=trusted)
    assert held.head.temperature >= 1


def test_a_row_that_weighs_three_counts_like_three_rows() -> None:
    features, labels, _ = blobs(60, 12, spread=2.0)
    targets = codes(labels, CLASSES)
    weights = np.where(np.arange(60) < 20, 3, 1)
    rotated = rotate(features)
    heavy = solve(rotated, mass_of(rotated, targets[None], 3, weights.astype(np.float32)), 0.5)[0]
    many = replace(rotated, rows=np.repeat(rotated.rows, weights, axis=0))
    repeated = solve(many, mass_of(many, np.repeat(targets, weights)[None], 3), 0.5)[0]
    np.testing.assert_allclose(_answers(rotated.rows, heavy), _answers(rotated.rows, repeated), atol=2e-3)
    assert np.abs(heavy - solve(rotated, mass_of(rotated, targets[None], 3), 0.5)[0]).max() > 0.01
