import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from labelloop.config.project import Gate
from labelloop.objects.formats import typed
from labelloop.records.evidence import (
    Artefact,
    Calibration,
    ClassRecall,
    Comparison,
    Evaluation,
    LossComparison,
    Outcome,
    PreLabels,
    Renaming,
    Verdict,
    evaluation_from,
)
from labelloop.records.json import canonical, to_dict
from labelloop.rules import gate
from labelloop.rules.gate.paired import FEW_LEVEL, few_level

POLICY = Gate()
RULES = {
    "comparison", "artefact", "class order", "known labels", "chance", "random labels", "minimum accuracy",
    "later labels", "class recall", "calibration", "robustness", "latency",
}  # fmt: skip
SENTENCE = re.compile(r"(?!.*\bNone\b).*\w")


def judge(evaluation: Evaluation, policy: Gate) -> Verdict:
    """The gate's verdict. Whatever it is, it says why, with the figures that it rests on."""
    verdict = gate.judge(evaluation, policy)
    assert {c.rule for c in verdict.checks} <= RULES
    assert all(SENTENCE.match(text) for text in [*verdict.reasons, *(c.reason for c in verdict.checks)])
    assert all(re.search(r"\d", c.reason) for c in verdict.checks[1:])
    assert verdict.checks[0].reason in verdict.reasons
    found = evaluation.test_comparison if evaluation.kind == "retrain" else evaluation.comparison
    if found and found.n and (evaluation.kind == "retrain" or evaluation.new_labels or evaluation.renamed):
        assert sum(f"{found.challenger:.3f} against {found.champion:.3f}" in text for text in verdict.reasons) == 1
    return verdict


def compared(n: int = 180, *, difference: float = 0.007, half: float = 0.018, changed: int = 12) -> Comparison:
    low, high = difference - half, difference + half
    return Comparison("train labels, out of fold", n, 0.835, 0.835 + difference, difference, low, high, changed)


FIRST = Evaluation(
    "refresh", 40, 40, ("cat", "dog"), accuracy=0.8, accuracy_low=0.65, accuracy_high=0.9, majority=0.55, judged_on=40
)
REFRESH = replace(FIRST, new_labels=10, comparison=compared())
RETRAIN = replace(FIRST, kind="retrain", comparison=None, test_comparison=compared(200))


def refreshed(**of: float) -> Verdict:
    return judge(replace(REFRESH, comparison=compared(**of)), POLICY)  # type: ignore[arg-type]


def retrained(n: int = 200, **of: float) -> Verdict:
    return judge(replace(RETRAIN, test_comparison=compared(n, **of)), POLICY)  # type: ignore[arg-type]


def test_first_head_beats_the_largest_class() -> None:
    assert judge(FIRST, POLICY).outcome is Outcome.PROMOTE
    unsure = judge(replace(FIRST, accuracy_low=0.55), POLICY)
    assert unsure.outcome is Outcome.HOLD
    assert "0.800 right out of fold on 40 labels (95 % bound: 0.550)" in unsure.reasons[1]


def few(right: int, wrong: int, **of: Any) -> Verdict:
    """A first head of twenty labels."""
    shown = PreLabels(right, wrong, of.pop("hidden", 0), of.pop("only", 0), of.pop("majority", 0.4))
    return judge(replace(FIRST, judged_on=20, shown=shown, **of), POLICY)


@pytest.mark.parametrize(("right", "wrong", "promoted"), [
    (0, 0, False), (3, 0, True), (2, 0, False), (5, 2, False), (6, 2, True), (10, 10, False), (4, 16, False),
])  # fmt: skip
def test_a_first_head_of_few_labels_is_judged_by_its_pre_labels(right: int, wrong: int, promoted: bool) -> None:
    """By an exact test: what is shown is right more often than wrong."""
    found = few(right, wrong, hidden=4, only=2)
    assert (found.outcome is Outcome.PROMOTE) is promoted
    told = f"{right} pre-labels right out of fold, {wrong} wrong, 4 not shown; 2 labels, the only one of each class"
    assert any(told in reason for reason in found.reasons)


def test_where_one_class_is_nearly_everything_naming_it_is_no_merit() -> None:
    assert few(16, 4, majority=0.8).outcome is Outcome.HOLD
    assert few(20, 0, majority=0.8).outcome is Outcome.PROMOTE


def test_a_head_of_two_classes_of_six_is_held_and_says_which_it_does_not_know() -> None:
    found = few(12, 0, missing=("elk", "fox", "owl", "sow"))
    assert found.outcome is Outcome.HOLD
    assert "fewer than half of the classes" in found.reasons[0]
    assert any("knows 2 of 6 classes: elk, fox, owl, sow have too few labels" in reason for reason in found.reasons)
    half = few(12, 0, missing=("elk", "fox"))
    assert half.outcome is Outcome.PROMOTE
    assert any("knows 2 of 4 classes" in reason for reason in half.reasons)
    assert any("knows all 2 classes" in reason for reason in few(12, 0).reasons)


def test_from_fifty_labels_on_the_largest_class_is_what_a_first_head_must_beat() -> None:
    """A head of many hard classes is seldom right, and orders the queue."""
    shown = PreLabels(20, 30, 0, 0, 0.1)
    hard = replace(FIRST, accuracy=0.4, accuracy_low=0.28, majority=0.1, shown=shown)
    assert judge(replace(hard, judged_on=50), POLICY).outcome is Outcome.PROMOTE
    assert judge(replace(hard, judged_on=49), POLICY).outcome is Outcome.HOLD


@pytest.mark.parametrize("seed", range(20))
def test_the_level_for_few_labels_is_kept(seed: int) -> None:
    """Of heads whose pre-labels are right as often as wrong at most one in ten is let through; mid-p: about."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 40))
    right = rng.binomial(n, 0.5, 400)
    promoted = np.mean([few_level(PreLabels(int(r), n - int(r), 0, 0, 0.3)) < FEW_LEVEL for r in right])
    assert promoted < 0.19


def test_first_head_without_evidence_is_held() -> None:
    nothing = replace(FIRST, accuracy=None, accuracy_low=None, accuracy_high=None)
    assert judge(nothing, POLICY).outcome is Outcome.HOLD


def test_refresh_within_tolerance_needs_no_proof() -> None:
    verdict = refreshed()
    assert verdict.outcome is Outcome.PROMOTE
    assert verdict.reasons[1] == (
        "train labels, out of fold: 0.842 against 0.835 on 180 labels "
        "(difference +0.7 points, 95 % interval -1.1 to +2.5)"
    )
    assert refreshed(difference=-0.015).outcome is Outcome.PROMOTE


def test_no_new_label_is_held() -> None:
    assert judge(replace(REFRESH, new_labels=0), POLICY).outcome is Outcome.HOLD


def test_new_labels_are_learned_even_where_the_arms_agree() -> None:
    assert refreshed(difference=0.0, half=0.01, changed=0).outcome is Outcome.PROMOTE


@pytest.mark.parametrize(
    ("difference", "half", "outcome"),
    [
        (-0.030, 0.020, Outcome.REJECT),  # proven
        (-0.005, 0.004, Outcome.REJECT),  # small, and proven
        (-0.030, 0.100, Outcome.HOLD),  # beyond tolerance, not proven
        (-0.019, 0.100, Outcome.PROMOTE),
        (0.030, 0.020, Outcome.PROMOTE),
    ],
)
def test_refresh_that_lost(difference: float, half: float, outcome: Outcome) -> None:
    assert refreshed(difference=difference, half=half).outcome is outcome


def test_a_single_image_is_no_loss() -> None:
    verdict = refreshed(n=20, difference=-1 / 20, half=0.12)
    assert verdict.outcome is Outcome.PROMOTE
    assert "one image lost" in verdict.reasons[0]
    assert refreshed(n=20, difference=-2 / 20, half=0.12).outcome is Outcome.HOLD


def surprised(difference: float, half: float) -> LossComparison:
    low, high = difference - half, difference + half
    return LossComparison("labels that both have learned", 60, 0.5, 0.5 + difference, difference, low, high)


@pytest.mark.parametrize(
    ("difference", "half", "outcome"),
    [
        (0.050, 0.060, Outcome.HOLD),  # beyond tolerance, and more than chance makes it in one of ten
        (0.050, 0.090, Outcome.PROMOTE),  # chance does this in one of seven
        (0.025, 0.001, Outcome.PROMOTE),  # within tolerance
        (-0.100, 0.010, Outcome.PROMOTE),
    ],
)
def test_new_labels_that_speak_against_the_earlier_ones_are_held(
    difference: float, half: float, outcome: Outcome
) -> None:
    for accuracy in (compared(50, difference=0.02, half=0.1), compared(50, difference=-0.08, half=0.13)):
        verdict = judge(replace(REFRESH, comparison=accuracy, earlier=surprised(difference, half)), POLICY)
        assert verdict.outcome is outcome
        assert any(r.startswith("labels that both have learned: log loss") for r in verdict.reasons)
        assert (outcome is Outcome.HOLD) == ("check the newest" in verdict.reasons[0])


def test_lost_accuracy_that_is_proven_outweighs_the_earlier_labels() -> None:
    lost = replace(REFRESH, comparison=compared(difference=-0.03, half=0.02), earlier=surprised(-0.1, 0.01))
    assert judge(lost, POLICY).outcome is Outcome.REJECT


def test_a_gain_that_is_proven_is_not_held_for_the_earlier_labels() -> None:
    gained = replace(REFRESH, comparison=compared(difference=0.17, half=0.14), earlier=surprised(0.08, 0.05))
    assert judge(gained, POLICY).outcome is Outcome.PROMOTE
    unproven = replace(gained, comparison=compared(difference=0.13, half=0.17))
    assert judge(unproven, POLICY).outcome is Outcome.HOLD


@pytest.mark.parametrize(
    ("difference", "half", "outcome"),
    [
        (-0.06, 0.02, Outcome.REJECT),
        (-0.07, 0.075, Outcome.HOLD),
        (-0.04, 0.07, Outcome.PROMOTE),  # chance does this in one of eight
        (-0.02, 0.01, Outcome.PROMOTE),
    ],
)
def test_losses_summed_up_since_the_reference_are_bounded(difference: float, half: float, outcome: Outcome) -> None:
    reference = compared(difference=difference, half=half)
    verdict = judge(replace(REFRESH, comparison=compared(difference=-0.005), reference=reference), POLICY)
    assert verdict.outcome is outcome
    assert any("reference" in r for r in verdict.reasons) is (outcome is not Outcome.PROMOTE)


def test_a_long_row_of_small_losses_ends() -> None:
    """Each within tolerance of the one before; against the fixed reference they add up."""
    promoted = 0
    for step in range(1, 20):
        reference = compared(2000, difference=-0.004 * step, half=0.006)
        small = compared(2000, difference=-0.004, half=0.006)
        verdict = judge(replace(REFRESH, comparison=small, reference=reference), POLICY)
        if verdict.outcome is not Outcome.PROMOTE:
            break
        promoted = step
    assert promoted * 0.004 <= POLICY.reference_tolerance + 0.004


@pytest.mark.parametrize(
    ("n", "difference", "half", "changed", "outcome"),
    [
        (200, 0.05, 0.04, 20, Outcome.PROMOTE),
        (30, 0.20, 0.15, 9, Outcome.PROMOTE),  # few, but clear of zero
        (30, -0.20, 0.15, 9, Outcome.REJECT),
        (30, 0.05, 0.10, 4, Outcome.HOLD),
        (200, 0.00, 0.01, 0, Outcome.HOLD),  # nothing gained
        (900, 0.005, 0.015, 40, Outcome.PROMOTE),  # shown not to be worse
        (900, -0.005, 0.012, 40, Outcome.HOLD),  # looks worse
        (200, 0.01, 0.05, 20, Outcome.HOLD),
        (200, -0.05, 0.04, 20, Outcome.REJECT),
        (0, 0.0, 1.0, 0, Outcome.HOLD),
    ],
)
def test_the_test_bucket_judges_a_retrain(
    n: int, difference: float, half: float, changed: int, outcome: Outcome
) -> None:
    assert retrained(n, difference=difference, half=half, changed=changed).outcome is outcome


def test_how_many_test_labels_are_needed() -> None:
    verdict = retrained(30, difference=0.02, half=0.10)
    assert (
        verdict.reasons[0] == "not enough evidence: 30 test labels, about 750 needed to detect a difference of 2 points"
    )


def test_a_first_retrain_is_judged_like_a_first_head() -> None:
    assert judge(replace(FIRST, kind="retrain"), POLICY).outcome is Outcome.PROMOTE


@pytest.mark.parametrize(
    ("test", "outcome"),
    [
        (None, Outcome.HOLD),
        (compared(30), Outcome.HOLD),
        (compared(200), Outcome.PROMOTE),
        (compared(200, difference=-0.03), Outcome.REJECT),
        (compared(200, difference=-0.06, half=0.07), Outcome.HOLD),
    ],
)
def test_refresh_on_labels_the_backbone_saw_is_judged_by_the_test_bucket(
    test: Comparison | None, outcome: Outcome
) -> None:
    unseen = Comparison("none", 0, 0, 0, 0, -1, 1, 0)
    assert judge(replace(REFRESH, comparison=unseen, test_comparison=test), POLICY).outcome is outcome


def test_waiting_classes_are_named_and_do_not_block() -> None:
    verdict = judge(replace(REFRESH, waiting={"owl": 2}), POLICY)
    assert verdict.outcome is Outcome.PROMOTE
    assert "classes with too few labels: owl 2" in verdict.reasons


def test_a_champion_that_speaks_of_renamed_classes_is_replaced_without_a_new_label() -> None:
    verdict = judge(replace(REFRESH, new_labels=0, renamed=("cat",), comparison=compared(difference=0.0)), POLICY)
    assert verdict.outcome is Outcome.PROMOTE
    assert "follows the renamed, merged or dropped classes (cat)" in verdict.reasons[0]


def test_small_losses_that_add_up_keep_nobody_from_speaking_of_renamed_classes() -> None:
    added_up = replace(REFRESH, comparison=compared(difference=0.0), reference=compared(difference=-0.04))
    assert judge(added_up, POLICY).outcome is Outcome.REJECT
    assert judge(replace(added_up, renamed=("cat",)), POLICY).outcome is Outcome.PROMOTE
    worse = compared(difference=-0.04)
    assert judge(replace(added_up, comparison=worse, renamed=("cat",)), POLICY).outcome is not Outcome.PROMOTE


# --- rules beside the comparison


def with_rules(**changes: Any) -> Verdict:
    return judge(replace(REFRESH, **changes), POLICY)


@pytest.mark.parametrize(
    ("rule", "outcome", "changes"),
    [
        ("artefact", Outcome.PROMOTE, {"artefact": Artefact(32, 0.0009, 10.0)}),
        ("artefact", Outcome.REJECT, {"artefact": Artefact(32, 0.0011, 10.0)}),
        ("latency", Outcome.PROMOTE, {"artefact": Artefact(32, 0.0, 12.9, 10.0)}),
        ("latency", Outcome.HOLD, {"artefact": Artefact(32, 0.0, 14.0, 10.0)}),
        ("latency", Outcome.PROMOTE, {"artefact": Artefact(32, 0.0, 1.2, 0.3)}),  # nobody notices
        ("class order", Outcome.PROMOTE, {"known_accuracy": 0.75, "renaming": Renaming(0.95, ("a → b", "b → a"))}),
        ("class order", Outcome.REJECT, {"known_accuracy": 0.6, "renaming": Renaming(0.95, ("a → b", "b → a"))}),
        ("known labels", Outcome.PROMOTE, {"known_accuracy": 0.71}),
        ("known labels", Outcome.REJECT, {"known_accuracy": 0.69}),
        ("chance", Outcome.PROMOTE, {"judged_on": 100, "accuracy_low": 0.5, "accuracy_high": 0.60}),
        ("chance", Outcome.REJECT, {"judged_on": 100, "accuracy_low": 0.5, "accuracy_high": 0.59}),
        ("chance", Outcome.PROMOTE, {"judged_on": 49, "accuracy_low": 0.5, "accuracy_high": 0.59}),
        ("random labels", Outcome.PROMOTE, {"test_comparison": compared(200, difference=-0.04, half=0.05)}),
        ("random labels", Outcome.REJECT, {"test_comparison": compared(200, difference=-0.04, half=0.03)}),
        ("minimum accuracy", Outcome.PROMOTE, {"test_n": 49, "test_accuracy": 0.1, "test_high": 0.2}),
        ("minimum accuracy", Outcome.PROMOTE, {"test_n": 50, "test_accuracy": 0.60, "test_high": 0.7}),
        ("minimum accuracy", Outcome.HOLD, {"test_n": 50, "test_accuracy": 0.59, "test_high": 0.7}),
        ("minimum accuracy", Outcome.REJECT, {"test_n": 90, "test_accuracy": 0.45, "test_high": 0.55}),
        ("class recall", Outcome.PROMOTE, {"recalls": (ClassRecall("a", 30, 0.5, 0.7, 0.6, 0.05),)}),
        ("class recall", Outcome.PROMOTE, {"recalls": (ClassRecall("a", 30, 0.5, 0.7, 0.9, 0.05, among=0.88),)}),
        ("class recall", Outcome.REJECT, {"recalls": (ClassRecall("a", 30, 0.5, 0.7, 0.9, -0.01, among=0.6),)}),
        ("class recall", Outcome.PROMOTE, {"recalls": (ClassRecall("a", 4, 0.0, 0.5, 1.0, -0.1),)}),
        ("class recall", Outcome.REJECT, {"recalls": (ClassRecall("a", 30, 0.5, 0.7, 0.7, -0.01),)}),
        ("class recall", Outcome.HOLD, {"recalls": (ClassRecall("a", 30, 0.0, 0.11, 0.1, 0.05),)}),
        ("class recall", Outcome.PROMOTE, {"recalls": (ClassRecall("a", 30, 0.0, 0.11, 0.0, 0.05),)}),
        ("class recall", Outcome.HOLD, {"recalls": (ClassRecall("a", 40, 0.0, 0.09),)}),
        ("calibration", Outcome.PROMOTE, {"judged_on": 100, "ece": 0.15}),
        ("calibration", Outcome.HOLD, {"judged_on": 100, "ece": 0.16}),
        ("calibration", Outcome.PROMOTE, {"judged_on": 99, "ece": 0.16}),
        ("robustness", Outcome.PROMOTE, {"robustness": compared(300, difference=-0.04)}),
        ("robustness", Outcome.HOLD, {"robustness": compared(300, difference=-0.06)}),
        ("robustness", Outcome.REJECT, {"robustness": compared(300, difference=-0.09)}),
    ],
)
def test_each_rule_on_both_sides(rule: str, outcome: Outcome, changes: dict[str, Any]) -> None:
    verdict = with_rules(**changes)
    assert verdict.outcome is outcome
    assert [c.outcome for c in verdict.checks if c.rule == rule] == ([outcome] if _judged(rule, changes) else [])


OTHER = {"head_changed": ("ensemble instead of linear",)}


@pytest.mark.parametrize(
    ("n", "difference", "half", "changed", "outcome"),
    [
        (200, -0.04, 0.05, OTHER, Outcome.HOLD),  # beyond tolerance, not proven
        (200, -0.01, 0.05, OTHER, Outcome.PROMOTE),
        (200, -0.04, 0.05, {}, Outcome.PROMOTE),  # ten labels more: out of fold says more
        (49, -0.04, 0.05, OTHER, Outcome.PROMOTE),  # too few
        (49, -0.15, 0.10, OTHER, Outcome.REJECT),  # proven
        (200, -0.04, 0.03, OTHER, Outcome.REJECT),
    ],
)
def test_another_recipe_of_the_head_is_judged_by_random_labels(
    n: int, difference: float, half: float, changed: dict[str, Any], outcome: Outcome
) -> None:
    verdict = with_rules(test_comparison=compared(n, difference=difference, half=half), **changed)
    assert verdict.outcome is outcome
    assert [c.outcome for c in verdict.checks if c.rule == "random labels"] == [outcome]


def test_too_few_random_labels_for_another_recipe_are_said() -> None:
    verdict = with_rules(test_comparison=compared(20), **OTHER)
    assert verdict.outcome is Outcome.PROMOTE
    assert "ensemble instead of linear" in verdict.reasons[-1]
    assert "from 50 random labels on, have 20" in verdict.reasons[-1]


def test_where_one_class_is_nearly_everything_a_good_model_is_not_random() -> None:
    """Defects are four in a hundred: no accuracy is five points above naming none."""
    seldom = Evaluation(
        "refresh", 1000, 1000, ("ok", "defect"), accuracy=0.99, accuracy_low=0.982, accuracy_high=0.995,
        majority=0.96, judged_on=1000,
    )  # fmt: skip
    assert judge(seldom, POLICY).outcome is Outcome.PROMOTE
    unsure = replace(seldom, accuracy=0.97, accuracy_low=0.958, accuracy_high=0.979)
    assert judge(unsure, POLICY).outcome is Outcome.HOLD
    nothing = replace(seldom, accuracy=0.93, accuracy_low=0.912, accuracy_high=0.944)
    assert judge(nothing, POLICY).outcome is Outcome.REJECT


def test_a_class_that_the_champion_does_not_see_either_is_named() -> None:
    verdict = with_rules(recalls=(ClassRecall("owl", 40, 0.0, 0.09, 0.0, 0.05),))
    assert verdict.outcome is Outcome.PROMOTE
    assert verdict.reasons[-1].startswith("below the floor of 0.20, like the champion: owl recognised 0.00")


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (Calibration(60, 0.25, 0.10, 0.06), Outcome.HOLD),
        (Calibration(60, 0.25, 0.20, 0.06), Outcome.PROMOTE),  # chance makes such a difference
        (Calibration(60, 0.15, 0.02, 0.06), Outcome.PROMOTE),  # worse, and good enough
        (Calibration(49, 0.25, 0.10, 0.06), Outcome.PROMOTE),  # too few
        (Calibration(100, 0.25), Outcome.HOLD),
        (Calibration(99, 0.25), Outcome.PROMOTE),
    ],
)
def test_a_retrain_is_asked_whether_its_probabilities_can_be_believed(found: Calibration, outcome: Outcome) -> None:
    better = compared(400, difference=0.05, half=0.01)
    retrain = replace(RETRAIN, test_comparison=better, calibration=found, ece=0.0, judged_on=30)
    assert judge(retrain, POLICY).outcome is outcome


def test_probabilities_as_bad_as_those_of_the_live_version_are_said() -> None:
    verdict = with_rules(calibration=Calibration(200, 0.25, 0.24, 0.06))
    assert verdict.outcome is Outcome.PROMOTE
    assert "like the champion's: expected calibration error 0.250 on 200 labels" in verdict.reasons[-1]


@pytest.mark.parametrize(
    ("outcome", "n", "difference"),
    [
        (Outcome.PROMOTE, 300, -0.01), (Outcome.HOLD, 60, -0.03), (Outcome.PROMOTE, 20, -0.05),
        (Outcome.REJECT, 300, -0.09), (Outcome.PROMOTE, 300, 0.2),
    ],
)  # fmt: skip
def test_later_labels_can_only_speak_against_a_retrain(outcome: Outcome, n: int, difference: float) -> None:
    later, better = compared(n, difference=difference, half=0.4 / n**0.5), compared(400, difference=0.05, half=0.01)
    evaluation = replace(REFRESH, kind="retrain", comparison=later, test_comparison=better)
    verdict = judge(evaluation, POLICY)
    assert verdict.outcome is outcome
    assert [c.outcome for c in verdict.checks if c.rule == "later labels"] == [outcome]
    worse = replace(evaluation, test_comparison=compared(400, difference=-0.05, half=0.01))
    assert judge(worse, POLICY).outcome is Outcome.REJECT


def _judged(rule: str, changes: dict[str, Any]) -> bool:
    """Whether the rule had enough to judge on."""
    few = rule == "calibration" and changes["judged_on"] < 100
    return not few and not (rule == "class recall" and changes["recalls"][0].n < 5)


def test_no_model_is_kept_out_for_what_the_champion_does_worse() -> None:
    worse = compared(200, difference=0.1, half=0.05)
    assert worse.champion == 0.835
    low = replace(worse, champion=0.3, challenger=0.4)
    assert with_rules(test_n=200, test_accuracy=0.4, test_high=0.47, test_comparison=low).outcome is Outcome.PROMOTE


def test_the_gravest_reason_stands_first() -> None:
    verdict = with_rules(artefact=Artefact(32, 0.5, 14.0, 10.0))
    assert verdict.outcome is Outcome.REJECT
    assert verdict.reasons[0].startswith("the artefact to serve differs from the one evaluated")
    assert verdict.reasons[1].startswith("too slow")


@pytest.mark.parametrize(
    ("approval", "evaluation", "awaits"),
    [
        ("auto", REFRESH, False),
        ("manual", REFRESH, True),
        ("auto-for-refresh", REFRESH, False),
        ("auto-for-refresh", replace(RETRAIN, test_comparison=compared(200, difference=0.05, half=0.02)), True),
    ],
)
def test_a_person_may_have_the_last_word(approval: Any, evaluation: Evaluation, awaits: bool) -> None:
    verdict = judge(evaluation, Gate(approval=approval))
    assert verdict.awaits is awaits
    assert verdict.outcome is (Outcome.HOLD if awaits else Outcome.PROMOTE)
    stopped = judge(replace(evaluation, artefact=Artefact(1, 1.0, 1.0)), Gate(approval=approval))
    assert (stopped.awaits, stopped.outcome) == (False, Outcome.REJECT)  # approval is asked for good models only


def test_evidence_and_verdict_are_read_as_they_were_written() -> None:
    evidence = replace(
        REFRESH, earlier=surprised(0.01, 0.02), test_comparison=compared(20), head_changed=("weights",),
        recalls=(ClassRecall("owl", 40, 0.0, 0.09, 0.0, 0.05),), calibration=Calibration(60, 0.2, 0.1, 0.05),
    )  # fmt: skip
    verdict = judge(evidence, POLICY)
    assert any(check.warns for check in verdict.checks)
    assert evaluation_from(json.loads(canonical(to_dict(evidence)))) == evidence
    assert typed(Verdict, json.loads(canonical(to_dict(verdict)))) == verdict
    older = to_dict(evidence)
    for name in ("calibration", "head_changed"):
        del older[name]
    assert evaluation_from(older).calibration is None
