"""The figures of a report against scikit-learn, and where there is nothing to divide by."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from labelloop.model.head import Head
from labelloop.records.arrays import Floats
from labelloop.rules.schema import LabelRules
from retrain_worker.heads.calibration import expected_calibration_error
from retrain_worker.report.inputs import Arm
from retrain_worker.report.measures import Ints, Measures, measure, predicted, share
from retrain_worker.report.resampling import LEAST, resample

CLASSES = ("a", "b", "c", "d", "e")


def answers(n: int, classes: int, seed: int = 0, skill: float = 1.5) -> tuple[Floats, Ints]:
    """Probabilities of an arm that knows something, and the truth."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, classes, n)
    logits = draw.normal(size=(n, classes))
    logits[np.arange(n), truth] += skill
    exp = np.exp(logits)
    return (exp / exp.sum(axis=1, keepdims=True)).astype(np.float32), truth


def measured(probabilities: Floats, truth: Ints, classes: tuple[str, ...] = CLASSES) -> Measures:
    found = measure(probabilities, truth, classes, classes)
    assert found is not None
    return found


def test_every_figure_is_scikit_learns() -> None:
    probabilities, truth = answers(300, 5)
    found, said = measured(probabilities, truth), probabilities.argmax(axis=1)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(truth, said, labels=range(5))
    assert found.n == 300
    assert found.accuracy.value == pytest.approx(metrics.accuracy_score(truth, said))
    assert found.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(truth, said))
    assert found.macro_precision == pytest.approx(precision.mean())
    assert found.macro_f1 == pytest.approx(metrics.f1_score(truth, said, average="macro"))
    assert found.log_loss == pytest.approx(metrics.log_loss(truth, probabilities, labels=range(5)), rel=1e-5)
    assert [c.precision for c in found.classes] == pytest.approx(precision.tolist())
    assert [c.recall.value for c in found.classes if c.recall] == pytest.approx(recall.tolist())
    assert [c.f1 for c in found.classes] == pytest.approx(f1.tolist())
    assert [c.support for c in found.classes] == support.tolist()
    assert [c.predicted for c in found.classes] == np.bincount(said, minlength=5).tolist()
    assert found.confusion == tuple(map(tuple, metrics.confusion_matrix(truth, said, labels=range(5)).tolist()))
    assert found.top == ((2, pytest.approx(metrics.top_k_accuracy_score(truth, probabilities, k=2))),)


def test_macro_figures_leave_out_classes_without_labels_and_count_those_never_answered() -> None:
    probabilities, truth = answers(200, 5, skill=0.3)
    truth = np.minimum(truth, 2)  # d and e have no labels
    probabilities[:, 1] = 0  # b is never answered
    found, said = measured(probabilities, truth), probabilities.argmax(axis=1)
    told = metrics.precision_recall_fscore_support(truth, said, labels=range(3), average="macro", zero_division=0)
    assert [found.macro_precision, found.balanced_accuracy, found.macro_f1] == pytest.approx(list(told[:3]))
    b, d = found.classes[1], found.classes[3]
    assert (b.precision, b.f1, b.predicted) == (None, 0.0, 0)
    assert b.recall is not None
    assert b.recall.value == 0
    assert (d.support, d.precision, d.recall, d.f1) == (0, None, None, None)
    assert d.predicted > 0


def test_reliability_bins_hold_all_answers_and_sum_up_to_the_ece_of_the_gate() -> None:
    probabilities, truth = answers(300, 5)
    found = measured(probabilities, truth)
    assert sum(b.count for b in found.bins) == 300
    gaps = [b.count / 300 * abs((b.accuracy or 0) - (b.confidence or 0)) for b in found.bins]
    assert found.ece == pytest.approx(sum(gaps), abs=1e-6)
    assert found.ece == expected_calibration_error(probabilities, truth)
    assert all((b.confidence is None) == (b.count == 0) for b in found.bins)
    assert all(b.low <= b.confidence <= b.high for b in found.bins if b.confidence is not None)


def test_a_class_that_the_head_does_not_know_counts_as_wrong() -> None:
    head = Head(("a", "b"), np.eye(2, dtype=np.float32), np.zeros(2, dtype=np.float32))
    arm = Arm("v1", head)
    aligned = arm.aligned(head.probabilities(np.array([[4, 0], [0, 4], [4, 0]], dtype=np.float32)), ("b", "new", "a"))
    assert aligned[:, 1].tolist() == [0, 0, 0]
    found = measure(aligned, np.array([2, 0, 1]), ("b", "new", "a"), arm.known)
    assert found is not None
    assert (found.accuracy.value, found.top) == (pytest.approx(2 / 3), ())
    assert [row.known for row in found.classes] == [True, False, True]
    assert found.log_loss > -np.log(1e-6) / 3


def test_merged_classes_are_summed_and_an_arm_whose_classes_were_all_dropped_is_always_wrong() -> None:
    head = Head(("a", "b", "c"), np.eye(3, dtype=np.float32), np.zeros(3, dtype=np.float32))
    probabilities = np.array([[0.3, 0.3, 0.4]], dtype=np.float32)
    merged = Arm("v1", head, rules=LabelRules({"b": "a"}))
    assert merged.known == ("a", "c")
    np.testing.assert_allclose(merged.aligned(probabilities, ("a", "c")), [[0.6, 0.4]], rtol=1e-6)
    gone = Arm("v1", head, rules=LabelRules({"a": None, "b": None, "c": None}))
    nothing = gone.aligned(probabilities, ("a", "c"))
    assert predicted(nothing).tolist() == [-1]
    found = measure(nothing, np.array([0]), ("a", "c"), gone.known)
    assert found is not None
    assert (found.accuracy.value, found.confusion, found.classes[0].support) == (0.0, ((0, 0), (0, 0)), 1)


def test_no_labels_give_no_figures() -> None:
    assert measure(np.empty((0, 5), dtype=np.float32), np.empty(0, dtype=np.int64), CLASSES, CLASSES) is None


def test_wilson_bounds_are_those_of_the_book() -> None:
    found = share(8, 10)  # Newcombe 1998: 0.4902 to 0.9433
    assert (found.low, found.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert share(0, 4).low == 0
    assert share(4, 4).high == 1


def test_resampled_intervals_hold_the_figures_repeat_and_know_that_arms_are_paired() -> None:
    probabilities, truth = answers(400, 5)
    other = probabilities.copy()
    other[:10] = other[:10, ::-1]  # answers differ on ten images at most
    found = resample((probabilities, other), truth, seed=1)
    assert found == resample((probabilities, other), truth, seed=1)
    assert found != resample((probabilities, other), truth, seed=2)
    ours = measured(probabilities, truth)
    for name in ("balanced_accuracy", "macro_precision", "macro_f1", "log_loss"):
        low, high = found.arms[0][name]
        assert low < getattr(ours, name) < high
        difference = found.difference[name]
        assert difference[1] - difference[0] < (high - low) / 2
    assert found.arms[0]["balanced_accuracy"] == pytest.approx((ours.accuracy.low, ours.accuracy.high), abs=0.02)


def test_too_few_images_are_not_resampled() -> None:
    probabilities, truth = answers(LEAST - 1, 5)
    assert resample((probabilities,), truth, seed=0).arms == ({},)
    probabilities, truth = answers(LEAST, 5)
    assert resample((probabilities,), truth, seed=0).arms[0]


def test_a_figure_that_no_draw_moves_has_no_interval() -> None:
    truth = np.arange(30) % 3
    sure = np.eye(3, dtype=np.float32)[truth]
    unsure = (sure + np.linspace(0.2, 1, 30, dtype=np.float32)[:, None]) / 2
    found = resample([sure, unsure / unsure.sum(axis=1, keepdims=True)], truth, seed=0)
    assert found.arms[0] == {}
    assert set(found.arms[1]) == {"log_loss"}
    assert set(found.difference) == {"log_loss"}
