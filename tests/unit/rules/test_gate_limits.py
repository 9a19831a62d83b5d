"""The gate exactly at its limits, and in its words: "at most" and "from … on" include the figure they name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from labelloop.config.project import Gate
from labelloop.records.evidence import (
    Artefact,
    Calibration,
    ClassRecall,
    Comparison,
    Contradiction,
    Evaluation,
    LossComparison,
    Outcome,
    Renaming,
)
from tests.unit.rules.test_gate import FIRST, POLICY, REFRESH, RETRAIN, few, judge
from tests.unit.rules.test_gate import compared as around

PROMOTE, HOLD, REJECT = Outcome.PROMOTE, Outcome.HOLD, Outcome.REJECT
ENOUGH = POLICY.min_test_labels
NOBODY = Comparison("none", 0, 0.0, 0.0, 0.0, -1.0, 1.0, 0)  # the backbone saw every label


def compared(low: float, difference: float, high: float, *, n: int = 200, changed: int = 9) -> Comparison:
    return Comparison("labels", n, 0.8, 0.8 + difference, difference, low, high, changed)


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (compared(-0.04, -0.02, 0.0), PROMOTE),  # a bound of zero proves no loss, and 2 points are within tolerance
        (compared(-0.04, -0.020001, 0.0), HOLD),
        (compared(-0.04, -0.02, -0.000001), REJECT),
        (compared(-0.15, -0.075, 0.01, n=20), PROMOTE),  # an image and a half of twenty
    ],
)
def test_a_refresh_at_its_limits(found: Comparison, outcome: Outcome) -> None:
    assert judge(replace(REFRESH, comparison=found), POLICY).outcome is outcome


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (compared(-0.04, -0.02, 0.0), HOLD),  # not proven to be worse
        (compared(0.0, 0.02, 0.04, n=ENOUGH - 1), HOLD),  # a bound of zero proves no gain
        (compared(-0.02, 0.0, 0.02, n=ENOUGH), PROMOTE),  # enough labels, not worse by more than tolerance
        (compared(-0.02, 0.0, 0.02, n=ENOUGH - 1), HOLD),
        (compared(-0.020001, 0.0, 0.02), HOLD),
        (compared(-0.02, 0.0, 0.02, changed=0), HOLD),
        (compared(-0.02, 0.0, 0.02, changed=1), PROMOTE),
    ],
)
def test_a_retrain_at_its_limits(found: Comparison, outcome: Outcome) -> None:
    assert judge(replace(RETRAIN, test_comparison=found), POLICY).outcome is outcome


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (compared(-0.04, -0.02, 0.0, n=ENOUGH), PROMOTE),
        (compared(-0.04, -0.02, 0.0, n=ENOUGH - 1), HOLD),
        (compared(-0.04, -0.02, -0.000001, n=ENOUGH), REJECT),
    ],
)
def test_a_refresh_on_labels_that_the_backbone_saw_at_its_limits(found: Comparison, outcome: Outcome) -> None:
    verdict = judge(replace(REFRESH, comparison=NOBODY, test_comparison=found), POLICY)
    assert verdict.outcome is outcome
    assert verdict.reasons[0] == "the backbone was trained on every label: only the test split counts"
    told = "about 50 needed" if found.n < ENOUGH else f"0.780 against 0.800 on {found.n} labels"
    assert told in verdict.reasons[1]


def test_a_sum_of_losses_whose_bound_is_zero_is_not_proven() -> None:
    reference = compared(-0.12, -0.06, 0.0)
    assert judge(replace(REFRESH, reference=reference), POLICY).outcome is HOLD
    assert judge(replace(REFRESH, reference=replace(reference, high=-0.001)), POLICY).outcome is REJECT


def surprised(difference: float) -> LossComparison:
    return LossComparison(
        "labels that both have learned", 60, 0.5, 0.5 + difference, difference, difference, difference
    )


def news(deviation: float) -> Contradiction:
    return Contradiction(10, 2.0, 0.5, deviation, 1.0, (17,))


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"earlier": surprised(0.03)}, PROMOTE),  # what may be added to the earlier labels' loss
        ({"earlier": surprised(0.030001)}, HOLD),
        ({"contradiction": news(3.0)}, PROMOTE),
        ({"contradiction": news(3.000001)}, HOLD),
        ({"earlier": surprised(0.1), "contradiction": news(1.0)}, PROMOTE),
        ({"earlier": surprised(0.1), "contradiction": news(1.000001)}, HOLD),
        ({"earlier": surprised(0.1), "comparison": compared(0.0, 0.1, 0.2)}, HOLD),  # no gain is proven
    ],
)
def test_doubts_at_their_limits(changes: dict[str, Any], outcome: Outcome) -> None:
    assert judge(replace(REFRESH, **changes), POLICY).outcome is outcome


@pytest.mark.parametrize(
    ("rule", "outcome", "changes"),
    [
        ("artefact", PROMOTE, {"artefact": Artefact(32, 1e-3, 10.0)}),
        ("latency", PROMOTE, {"artefact": Artefact(32, 0.0, 15.0, 10.0)}),  # half as long again is allowed here
        ("latency", HOLD, {"artefact": Artefact(32, 0.0, 15.001, 10.0)}),
        ("latency", PROMOTE, {"artefact": Artefact(32, 0.0, 2.0, 1.0)}),  # a millisecond, which nobody notices
        ("latency", HOLD, {"artefact": Artefact(32, 0.0, 2.001, 1.0)}),
        ("class order", PROMOTE, {"known_accuracy": 0.0, "accuracy": None, "renaming": Renaming(0.3, ("a → b",))}),
        ("class order", REJECT, {"known_accuracy": 0.0, "accuracy": None, "renaming": Renaming(0.31, ("a → b",))}),
        ("known labels", PROMOTE, {"known_accuracy": 0.4, "accuracy": 0.5}),
        ("known labels", REJECT, {"known_accuracy": 0.399, "accuracy": 0.5}),
        ("chance", REJECT, {"judged_on": 50, "majority": 0.5, "accuracy_low": 0.5, "accuracy_high": 0.549}),
        ("chance", PROMOTE, {"judged_on": 50, "majority": 0.5, "accuracy_low": 0.51, "accuracy_high": 0.549}),
        ("chance", PROMOTE, {"judged_on": 50, "majority": 0.5, "accuracy_low": 0.5, "accuracy_high": 0.55}),
        ("random labels", PROMOTE, {"test_comparison": compared(-0.04, -0.02, 0.0)}),
        ("random labels", REJECT, {"test_comparison": compared(-1.0, -1.0, -1.0, n=1)}),
        ("minimum accuracy", HOLD, {"test_n": 50, "test_accuracy": 0.59, "test_high": 0.60}),
        ("minimum accuracy", HOLD, {"test_n": 50, "test_accuracy": 0.59, "test_high": None}),
        ("class recall", REJECT, {"recalls": (ClassRecall("a", 5, 0.5, 0.7, 0.9, -0.01),)}),
        ("class recall", PROMOTE, {"recalls": (ClassRecall("a", 30, 0.5, 0.7, 0.65, -0.01),)}),
        ("class recall", REJECT, {"recalls": (ClassRecall("a", 30, 0.5, 0.7, 0.651, -0.01),)}),
        ("class recall", PROMOTE, {"recalls": (ClassRecall("a", 30, 0.5, 0.7, 0.9, 0.0),)}),  # not proven
        ("class recall", PROMOTE, {"recalls": (ClassRecall("a", 30, 0.0, 0.2, 0.1, 0.05),)}),  # may reach the floor
        ("class recall", PROMOTE, {"recalls": (ClassRecall("a", 30, 0.1, 0.25),)}),  # nobody to lose against
        ("robustness", PROMOTE, {"robustness": compared(-0.2, -0.05, 0.1)}),
        ("robustness", HOLD, {"robustness": compared(-0.2, -0.051, -0.05)}),
        ("robustness", REJECT, {"robustness": compared(-0.2, -0.1, -0.051)}),
        ("calibration", PROMOTE, {"calibration": Calibration(50, 0.25, 0.125, 0.125)}),  # no more than chance makes
        ("calibration", HOLD, {"calibration": Calibration(50, 0.25, 0.125, 0.124)}),
        ("calibration", PROMOTE, {"calibration": Calibration(50, 0.15, 0.0, 0.0)}),
        ("calibration", HOLD, {"calibration": Calibration(100, 0.16)}),
    ],
)
def test_a_rule_at_its_limit(rule: str, outcome: Outcome, changes: dict[str, Any]) -> None:
    verdict = judge(replace(REFRESH, **changes), Gate(slowdown=0.5))
    assert verdict.outcome is outcome
    assert [c.outcome for c in verdict.checks if c.rule == rule] == [outcome]


def test_another_recipe_of_the_head_is_judged_from_fifty_random_labels_on() -> None:
    lost = compared(-0.15, -0.05, 0.05, n=ENOUGH)
    other = replace(REFRESH, head_changed=("ensemble instead of linear",), test_comparison=lost)
    verdict = judge(other, POLICY)
    assert verdict.outcome is HOLD
    assert "looks worse by more than 2 points, not yet proven" in verdict.reasons[0]
    assert judge(replace(other, test_comparison=replace(lost, n=ENOUGH - 1)), POLICY).outcome is PROMOTE
    assert judge(replace(other, test_comparison=replace(lost, difference=-0.0301)), POLICY).outcome is HOLD


def test_random_labels_judge_once() -> None:
    """A retrain, and labels that the backbone saw, are compared on them: no second rule says the same."""
    on_random = compared(-0.04, 0.0, 0.04)
    for evaluation in (
        replace(REFRESH, kind="retrain", test_comparison=on_random),
        replace(REFRESH, comparison=NOBODY, test_comparison=on_random),
        replace(REFRESH, comparison=None, test_comparison=on_random),
        replace(REFRESH, test_comparison=NOBODY),
    ):
        assert "random labels" not in {c.rule for c in judge(evaluation, POLICY).checks}
    one = replace(REFRESH, comparison=around(1), test_comparison=on_random)
    assert "random labels" in {c.rule for c in judge(one, POLICY).checks}


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (compared(-0.04, -0.02, 0.0, n=ENOUGH), PROMOTE),
        (compared(-0.04, -0.0201, 0.0, n=ENOUGH), HOLD),
        (compared(-0.04, -0.0201, 0.0, n=ENOUGH - 1), PROMOTE),
        (compared(-0.04, -0.02, -0.0001, n=1), REJECT),
    ],
)
def test_later_labels_at_their_limits(found: Comparison, outcome: Outcome) -> None:
    better = compared(0.01, 0.02, 0.03)
    retrain = replace(REFRESH, kind="retrain", comparison=found, test_comparison=better)
    assert judge(retrain, POLICY).outcome is outcome


def test_a_model_as_good_as_its_champion_is_not_kept_out_for_the_minimum() -> None:
    bad = replace(compared(-0.1, 0.0, 0.1), champion=0.4, challenger=0.4)
    same = replace(REFRESH, test_n=200, test_accuracy=0.4, test_high=0.47, test_comparison=bad)
    verdict = judge(same, POLICY)
    assert verdict.outcome is PROMOTE
    (check,) = [c for c in verdict.checks if c.rule == "minimum accuracy"]
    assert "still an improvement, the champion has 0.400" in check.reason
    assert judge(replace(same, test_accuracy=0.399), POLICY).outcome is REJECT


def test_a_first_head_lacks_one_of_its_figures() -> None:
    assert judge(replace(FIRST, accuracy_low=None), POLICY).outcome is HOLD


def test_a_retrain_without_a_champion_to_beat_is_a_first_model() -> None:
    """Labels that came since may speak against it; they are not what it is judged by."""
    assert judge(replace(REFRESH, kind="retrain"), POLICY).reasons[0] == "first model: beats the largest class"


# --- words


def reasons(**changes: Any) -> tuple[str, ...]:
    return judge(replace(REFRESH, **changes), POLICY).reasons


def reason_of(rule: str, **changes: Any) -> str:
    (reason,) = [c.reason for c in judge(replace(REFRESH, **changes), POLICY).checks if c.rule == rule]
    return reason


def test_one_and_many_are_told_apart() -> None:
    assert reasons(new_labels=1)[0].startswith("trained on 1 new or changed label; ")
    assert reasons(new_labels=2)[0].startswith("trained on 2 new or changed labels; ")
    one = reasons(contradiction=replace(news(9.0), n=1))
    assert one[0].startswith("new labels contradict confident predictions of the champion: check task 17; ")
    assert any(
        r.startswith("1 new label: log loss 2.000, champion expected 0.500 (+9.0 SE): not plausible") for r in one
    )
    spoilt = reasons(earlier=surprised(0.1), contradiction=news(2.0))[0]
    assert spoilt.startswith("new labels spoil the earlier ones: check task 17; decided again")
    many = reasons(contradiction=replace(news(3.0), tasks=(17, 18)))
    assert any(r.startswith("10 new labels: ") and r.endswith("(+3.0 SE): plausible") for r in many)
    assert "on 1 label " in reasons(comparison=around(1))[1]
    assert "1 label, the only one of its class, cannot be judged" in few(5, 0, only=1).reasons[1]
    assert "owl has too few labels" in few(5, 0, missing=("owl",)).reasons[2]
    assert "probabilities on 1 image are 0 off" in reason_of("artefact", artefact=Artefact(1, 0.0, 1.0))
    assert "on 32 images" in reason_of("artefact", artefact=Artefact(32, 0.0, 1.0))


def test_what_a_loss_is_called() -> None:
    learned = "trained on 10 new or changed labels; "
    assert (
        reasons(comparison=compared(-0.1, -0.02, 0.1))[0] == f"{learned}as accurate as the champion (within 2 points)"
    )
    single = compared(-0.2, -0.05, 0.1, n=20)
    assert reasons(comparison=single)[0] == f"{learned}one image lost, too few to count"
    assert reasons(comparison=single, earlier=surprised(0.0))[0] == (
        f"{learned}no loss on the earlier labels, too few new ones to count"
    )
    renamed = reasons(renamed=("cat",), comparison=compared(-0.1, 0.0, 0.1))[0]
    assert renamed.startswith(f"{learned[:-2]}; follows the renamed, merged or dropped classes (cat)")


def test_figures_are_told_in_points_and_percent() -> None:
    told = reasons(comparison=compared(-1.0, 0.5, 1.0))[1]
    assert "(difference +50.0 points, 95 % interval -100.0 to +100.0)" in told
    slow = judge(replace(REFRESH, artefact=Artefact(32, 0.0, 40.0, 10.0)), POLICY)
    assert slow.reasons[0] == "too slow: 40.0 ms an image against 10.0 ms (+300 %), 30 % more allowed"


def test_the_weakest_classes_stand_first_and_at_most_three_are_named() -> None:
    lost = tuple(
        ClassRecall(name, 30, share, 0.7, 0.9, -0.01) for name, share in zip("abcd", (0.4, 0.3, 0.2, 0.1), strict=True)
    )
    told = reasons(recalls=lost)[0]
    assert told == (
        "loses a class: d recognised 0.10 (was 0.90) of 30 labels, c recognised 0.20 (was 0.90) of 30 labels, "
        "b recognised 0.30 (was 0.90) of 30 labels"
    )
    fine = reason_of("class recall", recalls=(ClassRecall("a", 30, 0.5, 0.7), ClassRecall("b", 30, 0.4, 0.7)))
    assert fine == "weakest of 2 classes: b recognised 0.40 of 30 labels"


def test_probabilities_are_told_beside_the_champions() -> None:
    alone = reason_of("calibration", calibration=Calibration(100, 0.1))
    assert alone == "expected calibration error 0.100 on 100 labels of the test split"
    beside = reason_of("calibration", calibration=Calibration(50, 0.1, 0.2, 0.1))
    assert beside.endswith("of the test split, the champion's 0.200")


def test_what_a_refresh_waits_for_is_told() -> None:
    assert not any("classes" in r for r in reasons())
    told = reasons(missing=("owl",))
    assert "knows 2 of 3 classes: owl has too few labels; images that look like another class get no pre-label" in told


@pytest.mark.parametrize(
    ("n", "half", "needed"),
    [(0, 1.0, "no test labels"), (1, 0.001, "about 50 needed"), (60, 0.0201, "about 61 needed"), (60, 0.04, "240")],
)
def test_how_many_labels_are_needed(n: int, half: float, needed: str) -> None:
    found = compared(-half, 0.0, half, n=n, changed=1)
    assert needed in judge(replace(RETRAIN, test_comparison=found), POLICY).reasons[0]


def test_approval_is_asked_for_with_the_reasons() -> None:
    evaluation: Evaluation = REFRESH
    verdict = judge(evaluation, Gate(approval="manual"))
    plain = judge(evaluation, POLICY)
    assert verdict.reasons[0].endswith("waits for a person (gate.approval: manual): `labelloop promote` or `reject`")
    assert verdict.reasons[1:] == plain.reasons
