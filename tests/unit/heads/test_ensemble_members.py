"""What is kept answers as the library that was fitted does: for random rows, far ones, and rows at a threshold."""

from dataclasses import replace

import numpy as np
import pytest

from labelloop.model.onnx_member import open_member
from labelloop.records.arrays import Floats
from retrain_worker.heads import members
from retrain_worker.heads.logistic import Ints, rotate
from retrain_worker.heads.members import (
    DEEP,
    MEDIUM,
    MEMBERS,
    SHALLOW,
    SLOPE,
    MemberTask,
    grown_forest,
    kernel,
    lightgbm_booster,
    spread,
    svm,
    vector_machines,
    xgboost_booster,
)
from retrain_worker.heads.to_onnx import of_forest, of_lightgbm, of_xgboost, rounded_down, trees_model

DIMENSION = 30
SHAPES = {"xgboost_shallow": SHALLOW, "xgboost_medium": MEDIUM, "xgboost_deep": DEEP}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer trees than in earnest."""
    monkeypatch.setattr(members, "FOREST", 40)


def part_of(features: Floats, targets: Ints, classes: int) -> MemberTask:
    rotated = rotate(features)
    return MemberTask(
        features, rotated.rows, rotated, targets, np.ones(len(targets), np.float32), classes, 7, lambda: None
    )


def drawn(classes: int, rows: int = 120, present: int | None = None) -> MemberTask:
    rng = np.random.default_rng(classes)
    targets = np.arange(rows) % (present or classes)
    centres = rng.normal(size=(classes, DIMENSION))
    features = np.maximum(0, rng.normal(size=(rows, DIMENSION)) + centres[targets]).astype(np.float32)
    features[::2, 0], features[1::2, 0] = 1.5, np.nextafter(np.float32(1.5), np.float32(2))
    return part_of(features, targets, classes)


def far_and_near(part: MemberTask) -> Floats:
    rng = np.random.default_rng(0)
    near = rng.normal(size=(200, DIMENSION)).astype(np.float32) * 3
    far = [np.full((1, DIMENSION), v, np.float32) for v in (0, -0.0, 1e-38, 1e30, -1e30, 3e38, -3e38)]
    return np.concatenate([part.features, near, *far])


def native(part: MemberTask, name: str, rows: Floats) -> Floats:
    """What the library itself says (n, classes that have rows)."""
    if name == "random_forest":
        return np.asarray(grown_forest(part).predict_proba(rows))
    if name == "lightgbm":
        return np.asarray(lightgbm_booster(part).predict(rows, num_threads=1))
    if name == "svm":
        support, machines = vector_machines(part)
        space = part.space
        wide = (rows.astype(np.float64) - space.mean) / space.scale @ space.basis.astype(np.float64).T
        gram = np.exp(-((wide[:, None, :] - support[None].astype(np.float64)) ** 2).sum(axis=2))
        logits = SLOPE * np.array([m.decision_function(gram) for m in machines.values()]).T
        return np.asarray(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    import xgboost

    return np.asarray(xgboost_booster(part, SHAPES[name]).predict(xgboost.DMatrix(rows, nthread=1)))


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("classes", [2, 5])
def test_a_member_answers_as_its_library_does(name: str, classes: int) -> None:
    part = drawn(classes)
    rows = far_and_near(part)
    found = open_member(MEMBERS[name](part), dimension=DIMENSION, classes=classes)(rows)
    np.testing.assert_allclose(found, native(part, name, rows), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_class_without_labels_gets_nothing(name: str) -> None:
    part = drawn(4, present=3)
    rows = far_and_near(part)
    found = open_member(MEMBERS[name](part), dimension=DIMENSION, classes=4)(rows)
    assert (found[:, 3] == 0).all()
    np.testing.assert_allclose(found[:, :3], native(part, name, rows), rtol=0, atol=1e-5)


def at(thresholds: list[tuple[int, float]], part: MemberTask) -> Floats:
    """Rows that lie exactly at a threshold, and one step of float32 to each side of it."""
    rows = []
    for i, (feature, threshold) in enumerate(thresholds):
        middle = np.float32(threshold)
        for value in (middle, np.nextafter(middle, np.float32(-np.inf)), np.nextafter(middle, np.float32(np.inf))):
            row = part.features[i % len(part.features)].copy()
            row[feature] = value
            rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("name", ["random_forest", "lightgbm", "xgboost_medium"])
def test_rows_at_a_threshold_stay_on_their_side(name: str) -> None:
    """Rounding a threshold to the nearest float32 would put them on the other one: seen with a converter package."""
    part = drawn(3)
    trees = {
        "random_forest": lambda: of_forest(grown_forest(part).estimators_, 3, range(3)),
        "lightgbm": lambda: of_lightgbm(lightgbm_booster(part).model_to_string(), 3, range(3)),
        "xgboost_medium": lambda: of_xgboost(bytes(xgboost_booster(part, MEDIUM).save_raw("json")), 3, range(3)),
    }[name]()
    branches = [(int(t.feature[i]), float(t.threshold[i])) for t in trees for i in np.flatnonzero(t.low >= 0)]
    rows = at(branches[::7], part)
    found = open_member(MEMBERS[name](part), dimension=DIMENSION, classes=3)(rows)
    np.testing.assert_allclose(found, native(part, name, rows), rtol=0, atol=1e-5)


def test_a_booster_that_finds_nothing_to_split_still_answers() -> None:
    part = part_of(np.ones((6, 4), np.float32), np.array([0, 0, 0, 0, 1, 1]), 2)
    for name in MEMBERS:
        found = open_member(MEMBERS[name](part), dimension=4, classes=2)(np.zeros((3, 4), np.float32))
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_lightgbm_without_a_split_keeps_the_shares_of_the_classes() -> None:
    part = part_of(np.ones((6, 4), np.float32), np.array([0, 0, 0, 0, 1, 1]), 2)
    rows = np.zeros((1, 4), np.float32)
    found = open_member(MEMBERS["lightgbm"](part), dimension=4, classes=2)(rows)
    np.testing.assert_allclose(found, native(part, "lightgbm", rows), atol=1e-5)


def test_rounding_down_never_passes_a_float() -> None:
    rng = np.random.default_rng(0)
    values = np.append(rng.normal(size=1000), [0.0, 1e-35, -1e-35, 1.0])
    down = rounded_down(values)
    assert (down <= values).all()
    assert (np.nextafter(down, np.float32(np.inf)) > values).all()


def test_rows_for_the_kernel_are_spread_over_the_classes() -> None:
    targets = np.array([0] * 90 + [1] * 6 + [2] * 4)
    kept = spread(targets, 20, seed=1)
    assert np.bincount(targets[kept]).tolist() == [10, 6, 4]
    assert (np.diff(kept) > 0).all()
    assert spread(targets, 1000, seed=1).tolist() == list(range(100))


def test_the_kernel_is_that_of_the_distance() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    wide = rows.astype(np.float64)
    np.testing.assert_allclose(kernel(rows, rows), np.exp(-((wide[:, None] - wide[None]) ** 2).sum(axis=2)))


def test_only_support_vectors_are_kept() -> None:
    part = drawn(2, rows=400)
    used = np.unique(np.concatenate([m.support_ for m in vector_machines(part)[1].values()]))
    assert len(used) < 400
    assert len(svm(part)) < 4 * (len(used) + DIMENSION) * DIMENSION + 16 * len(used) + 8 * len(used) + 4000


def test_trees_give_the_same_bytes_again() -> None:
    part = drawn(3)
    trees = of_forest(grown_forest(part).estimators_, 3, range(3))
    first, second = (trees_model(trees, dimension=DIMENSION, strict=False, labelled=None) for _ in range(2))
    assert first == second


def test_the_number_of_boosting_rounds_shrinks_with_classes() -> None:
    features = np.eye(300, 4, dtype=np.float32)

    def rounds(classes: int) -> int:
        return part_of(features, np.arange(300) % classes, classes).rounds

    assert [rounds(k) for k in (2, 20, 40, 300)] == [60, 60, 30, 10]


@pytest.mark.parametrize("name", MEMBERS)
def test_a_row_that_counts_little_says_little(name: str) -> None:
    """The same rows under two classes: whoever counts more is believed."""
    part = drawn(2, rows=80)
    twice = part_of(np.concatenate([part.features, part.features]), np.concatenate([part.targets, 1 - part.targets]), 2)
    for strong in (0, 1):
        weights = np.repeat(np.array([5.0, 0.2] if strong == 0 else [0.2, 5.0], np.float32), 80)
        model = MEMBERS[name](replace(twice, weights=weights))
        answers = open_member(model, dimension=DIMENSION, classes=2, threads=1)(part.features).argmax(axis=1)
        believed = part.targets if strong == 0 else 1 - part.targets
        assert (answers == believed).mean() > 0.9
