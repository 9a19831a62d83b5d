from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from labelloop.errors import NotEnoughLabelsError
from labelloop.model.head import Head
from labelloop.records.arrays import Floats
from labelloop.records.images import Example, Split
from labelloop.rules.intervals import wilson
from labelloop.rules.paired_intervals import mean_interval, paired_interval
from labelloop.rules.schema import LabelRules
from retrain_worker.evidence.answers import PairedAnswers, paired, recalls, surprise
from retrain_worker.evidence.collect import (
    LabelSets,
    Recipe,
    Side,
    entering,
    one_per_unit,
    refresh_evidence,
    retrain_evidence,
)
from retrain_worker.heads.calibration import Sureness, calibration, expected_calibration_error
from retrain_worker.heads.recipe import HeadRecipe

RNG = np.random.default_rng(0)
CENTRES = {name: RNG.normal(size=12) * 1.5 for name in "abc"}
TRUTH = {f"u{i:03d}": "abc"[i % 3] for i in range(240)}
FEATURES = {u: (CENTRES[c] + RNG.normal(size=12)).astype(np.float32) for u, c in TRUTH.items()}
RECIPE = Recipe(head=HeadRecipe(before={"strength": 0.3}))


def rows(uris: Sequence[str]) -> Floats:
    return np.stack([FEATURES[u] for u in uris])


def examples(start: int, stop: int, *, bucket: Split = Split.TRAIN, **labels: str) -> list[Example]:
    given = {**{u: TRUTH[u] for u in sorted(TRUTH)[start:stop]}, **labels}
    return [Example(i, u, f"g-{u}", bucket, label) for i, (u, label) in enumerate(given.items())]


def test_first_head_has_accuracy_and_no_comparison() -> None:
    found = refresh_evidence(LabelSets(examples(0, 60)), rows, champion=None, recipe=Recipe())
    evaluation = found.evaluation
    assert (evaluation.kind, evaluation.labels, evaluation.new_labels, evaluation.judged_on) == ("refresh", 60, 60, 60)
    assert evaluation.comparison is None
    assert evaluation.reference is None
    assert evaluation.majority == pytest.approx(1 / 3)
    assert evaluation.accuracy is not None
    assert evaluation.accuracy > 0.8
    assert evaluation.accuracy_low is not None
    assert evaluation.accuracy_low < evaluation.accuracy
    assert found.fitted.head.labels == ("a", "b", "c")


def test_equal_label_sets_agree_everywhere() -> None:
    sets = LabelSets(examples(0, 60), champion=examples(0, 60), reference=examples(0, 30))
    evaluation = refresh_evidence(sets, rows, champion=None, recipe=RECIPE).evaluation
    assert evaluation.new_labels == 0
    assert evaluation.comparison is not None
    assert (evaluation.comparison.changed, evaluation.comparison.difference) == (0, 0)
    assert evaluation.reference is not None


def test_both_arms_are_judged_on_the_grown_set() -> None:
    sets = LabelSets(examples(0, 90), champion=examples(0, 20))
    evaluation = refresh_evidence(sets, rows, champion=None, recipe=RECIPE).evaluation
    compared = evaluation.comparison
    assert evaluation.new_labels == 70
    assert compared is not None
    assert compared.n == 90
    assert compared.challenger == pytest.approx(evaluation.accuracy)
    assert compared.low <= compared.difference <= compared.high


def test_new_labels_are_asked_what_they_do_to_the_earlier_ones() -> None:
    before = examples(0, 60)
    swapped = {"a": "b", "b": "c", "c": "a"}
    wrong = [replace(e, label=swapped[e.label]) for e in examples(60, 80)]
    spoilt, more, same = (
        refresh_evidence(LabelSets(grown, champion=before), rows, champion=None, recipe=RECIPE).evaluation.earlier
        for grown in ([*before, *wrong], examples(0, 80), before)
    )
    assert spoilt is not None
    assert more is not None
    assert same is not None
    assert (spoilt.n, more.n) == (60, 60)
    assert spoilt.low > 0
    assert more.difference < 0.01
    assert spoilt.difference == pytest.approx(spoilt.challenger - spoilt.champion)
    assert same.difference == pytest.approx(0, abs=0.01)


def test_an_arm_that_is_only_less_sure_is_not_worse() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 60)
    logits = 2 * rng.normal(size=(60, 3)) + 3 * np.eye(3)[truth]
    sure, unsure, worse = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (logits, logits / 4, logits / 4))
    worse[:20] = worse[:20, ::-1]
    same, found = (
        surprise(truth, champion=sure.astype(np.float32), challenger=p.astype(np.float32), on="these")
        for p in (unsure, worse)
    )
    assert same is not None
    assert found is not None
    assert same.difference == pytest.approx(0, abs=0.02)
    assert found.low > 0


def test_a_class_that_enters_does_not_speak_against_the_earlier_labels() -> None:
    grown = examples(0, 60)
    before = [e for e in grown if e.label != "c"]
    found = refresh_evidence(LabelSets(grown, champion=before), rows, champion=None, recipe=RECIPE).evaluation.earlier
    assert found is not None
    assert found.n == 40
    assert found.difference < 0.02


def test_a_champion_of_two_classes_does_not_hold_up_one_of_three() -> None:
    """It calls everything a or b, and so finds all a; whoever knows c, too, finds fewer of them."""
    grown = examples(0, 60)
    before = [e for e in grown if e.label != "c"]
    head = refresh_evidence(LabelSets(before), rows, champion=None, recipe=RECIPE).fitted.head
    evaluation = refresh_evidence(LabelSets(grown, champion=before), rows, champion=head, recipe=RECIPE).evaluation
    found = {r.name: r for r in evaluation.recalls}
    assert found["c"].champion == 0.0
    for name in "ab":
        assert (found[name].among or 0.0) >= found[name].challenger
        assert found[name].drop_high >= 0


def test_a_recall_falls_only_among_classes_that_both_know() -> None:
    truth, sure = np.array(["a"] * 20), np.array(["a"] * 20)
    unsure = np.array(["a", "c"] * 10)
    [more_names] = recalls(PairedAnswers(truth, unsure, sure, among=sure))
    assert (more_names.challenger, more_names.among, more_names.champion) == (0.5, 1.0, 1.0)
    assert more_names.drop_high >= 0
    [worse] = recalls(PairedAnswers(truth, unsure, sure))
    assert (worse.among, worse.champion) == (0.5, 1.0)
    assert worse.drop_high < 0


def test_labels_that_people_changed_are_not_earlier_ones() -> None:
    before = examples(0, 60)
    wrong = [replace(e, label="a") for e in before[:30]]
    evaluation = refresh_evidence(
        LabelSets(before, champion=[*wrong, *before[30:]]), rows, champion=None, recipe=RECIPE
    )
    assert evaluation.evaluation.earlier is not None
    assert evaluation.evaluation.earlier.n == 40  # ten of the thirty were right


def test_changed_and_withdrawn_labels_count_as_changes() -> None:
    before = examples(0, 60)
    wrong = "b" if TRUTH["u000"] != "b" else "c"
    after = [replace(before[0], label=wrong), *before[1:-1]]
    evaluation = refresh_evidence(LabelSets(after, champion=before), rows, champion=None, recipe=RECIPE).evaluation
    assert (evaluation.new_labels, evaluation.labels) == (2, 59)


def test_wrong_labels_lower_the_accuracy() -> None:
    good = examples(0, 90)
    swapped = {"a": "b", "b": "c", "c": "a"}
    bad = [replace(e, label=swapped[e.label]) for e in good[:30]]
    after = LabelSets([*bad, *good[30:]], champion=good)
    spoilt = refresh_evidence(after, rows, champion=None, recipe=RECIPE).evaluation
    clean = refresh_evidence(LabelSets(good), rows, champion=None, recipe=RECIPE).evaluation
    assert spoilt.accuracy is not None
    assert clean.accuracy is not None
    assert clean.accuracy > spoilt.accuracy + 0.1


def test_a_class_below_the_minimum_waits() -> None:
    few = [e for e in examples(0, 60) if e.label != "c"] + [e for e in examples(0, 6) if e.label == "c"]
    found = refresh_evidence(LabelSets(few), rows, champion=None, recipe=Recipe(class_min=3))
    assert found.fitted.head.labels == ("a", "b")
    assert found.evaluation.waiting == {"c": 2}
    assert found.evaluation.labels == found.evaluation.judged_on == 40


def test_a_class_the_champion_lacks_counts_as_wrong_for_it() -> None:
    grown = examples(0, 60)
    before = [e for e in grown if e.label != "c"]
    evaluation = refresh_evidence(LabelSets(grown, champion=before), rows, champion=None, recipe=RECIPE).evaluation
    compared = evaluation.comparison
    assert compared is not None
    assert compared.champion <= 2 / 3
    assert compared.low > 0


def test_a_class_that_was_withdrawn_is_no_error() -> None:
    before = examples(0, 60)
    grown = [e for e in before if e.label != "c"]
    evaluation = refresh_evidence(LabelSets(grown, champion=before), rows, champion=None, recipe=RECIPE).evaluation
    assert evaluation.classes == ("a", "b")
    assert evaluation.comparison is not None
    assert evaluation.comparison.n == 40


def test_only_labels_the_backbone_never_saw_are_judged() -> None:
    saw = frozenset(e.group for e in examples(0, 50))
    recipe = Recipe(head=HeadRecipe(before={"strength": 0.3}), backbone_saw=saw)
    sets = LabelSets(examples(0, 80), champion=examples(0, 70))
    evaluation = refresh_evidence(sets, rows, champion=None, recipe=recipe).evaluation
    assert (evaluation.labels, evaluation.judged_on) == (80, 30)
    assert evaluation.comparison is not None
    assert evaluation.comparison.n == 30


def test_a_backbone_that_saw_all_leaves_nothing_to_judge_on() -> None:
    everything = examples(0, 40)
    recipe = Recipe(head=HeadRecipe(before={"strength": 0.3}), backbone_saw=frozenset(e.group for e in everything))
    sets = LabelSets(everything, champion=examples(0, 30))
    evaluation = refresh_evidence(sets, rows, champion=None, recipe=recipe).evaluation
    assert evaluation.accuracy is None
    assert evaluation.comparison is not None
    assert (evaluation.comparison.n, evaluation.comparison.low, evaluation.comparison.high) == (0, -1, 1)


def test_test_and_audit_labels_never_train() -> None:
    train = examples(0, 60)
    held = examples(60, 90, bucket=Split.TEST) + examples(90, 120, bucket=Split.AUDIT)
    lies = [replace(e, label="a") for e in held]
    honest = refresh_evidence(LabelSets([*train, *held]), rows, champion=None, recipe=RECIPE)
    lied = refresh_evidence(LabelSets([*train, *lies]), rows, champion=None, recipe=RECIPE)
    assert honest.fitted.head.dump() == lied.fitted.head.dump()
    assert (honest.evaluation.test_n, honest.evaluation.labels) == (30, 60)
    assert honest.evaluation.test_accuracy is not None
    assert lied.evaluation.test_accuracy is not None
    assert honest.evaluation.test_accuracy > lied.evaluation.test_accuracy


def test_test_comparison_is_of_the_heads_that_serve() -> None:
    champion = Head(("a",), np.zeros((1, 12), np.float32), np.zeros(1, np.float32))
    sets = LabelSets([*examples(0, 60), *examples(60, 90, bucket=Split.TEST)], champion=examples(0, 30))
    compared = refresh_evidence(sets, rows, champion=champion, recipe=RECIPE).evaluation.test_comparison
    assert compared is not None
    assert compared.champion == pytest.approx(1 / 3)
    assert compared.low > 0


def test_retrain_compares_two_feature_sets_on_the_test_bucket() -> None:
    noise = {u: np.random.default_rng(i).normal(size=3).astype(np.float32) for i, u in enumerate(FEATURES)}
    old = Side(
        Head(("a", "b"), np.eye(2, 3, dtype=np.float32), np.zeros(2, np.float32)),
        lambda u: np.stack([noise[x] for x in u]),
    )
    sets = LabelSets([*examples(0, 60), *examples(60, 120, bucket=Split.TEST)], champion=examples(0, 40))
    saw = frozenset(e.group for e in examples(0, 60))
    found = retrain_evidence(sets, rows, champion=old, recipe=Recipe(backbone_saw=saw)).evaluation
    assert (found.kind, found.new_labels, found.accuracy, found.comparison) == ("retrain", 20, None, None)
    assert found.test_comparison is not None
    assert (found.test_comparison.n, found.test_n) == (60, 60)
    assert found.test_comparison.low > 0


def test_labels_given_since_are_asked_of_both_before_either_has_learned_them() -> None:
    learned, later = examples(0, 60), examples(60, 90)
    champion = refresh_evidence(LabelSets(learned), rows, champion=None, recipe=RECIPE).fitted.head
    sets = LabelSets([*learned, *later], champion=examples(0, 70))
    saw = frozenset(e.group for e in learned)
    found = retrain_evidence(sets, rows, champion=Side(champion, rows), recipe=Recipe(backbone_saw=saw)).evaluation
    assert found.comparison is not None
    assert found.comparison.n == 20  # of 30 later labels the champion has learned ten
    lied = [*learned, *(replace(e, label="abc"[("abc".index(e.label) + 1) % 3]) for e in later)]
    sure = retrain_evidence(
        LabelSets(lied, champion=learned), rows, champion=Side(champion, rows), recipe=Recipe(backbone_saw=saw)
    ).evaluation.comparison  # fmt: skip
    assert sure is not None
    assert sure.champion < 0.2


def test_retrain_without_test_labels_says_so() -> None:
    head = Head(("a", "b"), np.zeros((2, 12), np.float32), np.zeros(2, np.float32))
    sets = LabelSets(examples(0, 60), champion=examples(0, 40))
    compared = retrain_evidence(sets, rows, champion=Side(head, rows), recipe=Recipe()).evaluation.test_comparison
    assert compared is not None
    assert compared.n == 0


def test_contradicting_duplicates_are_left_out_and_listed() -> None:
    twins = [Example(1, "x", "g", Split.TRAIN, "a"), Example(2, "y", "g", Split.TRAIN, "b")]
    same = [Example(3, "p", "h", Split.TRAIN, "a"), Example(4, "q", "h", Split.TRAIN, "a")]
    agreed, conflicts = one_per_unit([*twins, *same])
    assert {g: e.uri for g, e in agreed.items()} == {"h": "p"}
    assert conflicts == ("x", "y")


def test_what_is_missing_is_said() -> None:
    with pytest.raises(NotEnoughLabelsError, match="two classes with 3 labels each: a 2, b 1, c 1"):
        refresh_evidence(LabelSets(examples(0, 4)), rows, champion=None, recipe=Recipe(class_min=3))
    with pytest.raises(NotEnoughLabelsError, match="two classes with a label each: a 1"):
        refresh_evidence(LabelSets(examples(0, 1)), rows, champion=None, recipe=Recipe())


def test_entering_sorts_and_counts() -> None:
    assert entering(list("bbbaaac"), 3) == (("a", "b"), {"c": 1})


@pytest.mark.parametrize(
    ("right", "n", "low", "high"), [(0, 10, 0, 0.2775), (10, 10, 0.7225, 1), (81, 263, 0.2553, 0.3662)]
)
def test_wilson_as_published(right: int, n: int, low: float, high: float) -> None:
    """Newcombe 1998, table I."""
    assert wilson(right, n) == pytest.approx((low, high), abs=2e-4)


def test_paired_interval_by_hand() -> None:
    """(8, 2) of 50: plus 9/52, minus 3/52, half 1.96 sqrt((12/52 - (6/52)^2) / 52)."""
    low, high = paired_interval(8, 2, 50)
    assert (low, high) == pytest.approx((-0.0114, 0.2421), abs=2e-4)
    assert paired_interval(2, 8, 50) == pytest.approx((-high, -low))


@pytest.mark.parametrize(("n", "gain", "loss"), [(20, 0.1, 0.1), (50, 0.1, 0.02), (200, 0.05, 0.05), (200, 0.01, 0.03)])
def test_paired_interval_covers_the_truth(n: int, gain: float, loss: float) -> None:
    draws = np.random.default_rng(n).multinomial(n, [gain, loss, 1 - gain - loss], size=3000)
    bounds = [paired_interval(int(g), int(b), n) for g, b, _ in draws]
    assert np.mean([low <= gain - loss <= high for low, high in bounds]) >= 0.93


def test_intervals_end_where_shares_end() -> None:
    assert paired_interval(1, 0, 1)[1] == 1.0
    assert paired_interval(0, 1, 1)[0] == -1.0
    assert wilson(1, 1)[1] == 1.0
    assert mean_interval(np.ones(1))[1] == 1.0
    assert mean_interval(-np.ones(1))[0] == -1.0


def test_an_interval_of_a_mean_is_that_of_paired_answers_where_all_are_right_or_wrong() -> None:
    differences = np.array([1.0] * 8 + [-1.0] * 2 + [0.0] * 40)
    assert mean_interval(differences) == pytest.approx(paired_interval(8, 2, 50))
    assert mean_interval(-differences) == pytest.approx(paired_interval(2, 8, 50))


@pytest.mark.parametrize("n", [20, 100])
def test_an_interval_of_a_mean_covers_the_truth(n: int) -> None:
    draw = np.random.default_rng(n)
    bounds = [mean_interval(draw.triangular(-1, 0.2, 0.5, n)) for _ in range(2000)]
    assert 0.93 <= np.mean([low <= -0.1 <= high for low, high in bounds]) <= 0.995


def test_the_bounds_of_all_classes_hold_together() -> None:
    """Of many classes one looks worse by chance: what each must show grows with how many there are (Bonferroni)."""
    truth, ours, theirs = (np.array(list(text) * 10) for text in ("aaaaaaaa", "aaaaaabb", "aaaaaaaa"))
    (alone,) = recalls(PairedAnswers(truth, ours, theirs))
    others = np.array([f"class{i}" for i in range(9)])
    among = recalls(PairedAnswers(*(np.concatenate([part, others]) for part in (truth, ours, theirs))))
    assert alone.drop_high == pytest.approx(paired_interval(0, 20, 80)[1])
    assert alone.drop_high < among[0].drop_high
    assert among[0].drop_high == pytest.approx(paired_interval(0, 20, 80, z=2.807034)[1])  # 99.5 % of each of ten
    assert len(among) == 10


def test_hardly_ever_does_any_of_many_classes_seem_lost_by_chance() -> None:
    draw, families = np.random.default_rng(1), 400
    truth = np.repeat([f"class{i:02d}" for i in range(12)], 20)
    lost = 0
    for _ in range(families):
        ours, theirs = (np.where(draw.random(len(truth)) < 0.7, truth, "wrong") for _ in range(2))
        lost += any(r.drop_high < 0 for r in recalls(PairedAnswers(truth, ours, theirs)))
    assert lost / families < 0.04  # each on its own would make one in four


def test_paired_counts_changed_answers_even_where_both_are_wrong() -> None:
    truth, ours, theirs = np.array(list("aabb")), np.array(list("acbc")), np.array(list("abbb"))
    found = paired(truth, champion=theirs, challenger=ours, on="x")
    assert (found.changed, found.difference, found.champion, found.challenger) == (2, -0.25, 0.75, 0.5)


def test_calibration_error_of_a_boaster_and_of_an_honest_one() -> None:
    given = np.array([0, 0, 0, 1] * 25)
    sure = np.tile(np.array([[0.99, 0.01]], np.float32), (100, 1))
    honest = np.tile(np.array([[0.75, 0.25]], np.float32), (100, 1))
    assert expected_calibration_error(sure, given) == pytest.approx(0.24, abs=1e-4)
    assert expected_calibration_error(honest, given) == pytest.approx(0, abs=1e-4)


def test_a_head_that_boasts_more_than_the_champion_is_told_from_chance() -> None:
    rng = np.random.default_rng(3)
    right = rng.random(120) < 0.7
    honest, boaster = (Sureness(np.full(120, sure, np.float32), right) for sure in (0.7, 0.99))
    found = calibration(boaster, honest)
    assert found is not None
    assert found.champion is not None
    assert found.challenger - found.champion > found.chance
    other = Sureness(np.full(120, 0.7, np.float32), rng.random(120) < 0.7)
    alike = calibration(other, honest)
    assert alike is not None
    assert alike.champion is not None
    assert alike.challenger - alike.champion <= alike.chance
    alone = calibration(boaster, None)
    assert alone is not None
    assert (alone.n, alone.champion) == (120, None)
    assert alone.challenger == pytest.approx(0.99 - right.mean(), abs=1e-4)
    assert calibration(Sureness(np.zeros(0, np.float32), np.zeros(0, np.bool_)), None) is None


def test_the_probabilities_of_the_heads_that_serve_are_judged_on_the_test_bucket() -> None:
    test = examples(180, 240, bucket=Split.TEST)
    champion = refresh_evidence(LabelSets(examples(0, 60)), rows, champion=None, recipe=Recipe()).fitted.head
    sets = LabelSets([*examples(0, 90), *test], champion=examples(0, 60))
    for found in (
        refresh_evidence(sets, rows, champion=champion, recipe=Recipe()),
        retrain_evidence(sets, rows, champion=Side(champion, rows), recipe=Recipe()),
    ):
        served = found.fitted.head.probabilities(rows([e.uri for e in test]))
        given = np.array([found.fitted.head.labels.index(e.label) for e in test])
        judged = found.evaluation.calibration
        assert judged is not None
        assert judged.n == 60
        assert judged.challenger == pytest.approx(expected_calibration_error(served, given))
        assert judged.champion is not None


def test_after_a_rename_the_champion_is_compared_under_the_new_names() -> None:
    rules = LabelRules({"a": "alpha"})
    grown = [replace(e, label="alpha") if e.label == "a" else e for e in examples(0, 60)]
    test = [replace(e, label="alpha") if e.label == "a" else e for e in examples(180, 240, bucket=Split.TEST)]
    champion = refresh_evidence(LabelSets(examples(0, 60)), rows, champion=None, recipe=Recipe()).fitted.head
    sets = LabelSets([*grown, *test], champion=grown)  # old snapshots are read through the same rules
    found = refresh_evidence(sets, rows, champion=champion, recipe=replace(RECIPE, rules=rules)).evaluation
    assert found.renamed == ("a", "alpha")
    assert found.new_labels == 0
    compared = found.test_comparison
    assert compared is not None
    assert (compared.n, compared.changed) == (60, 0)
    blind = refresh_evidence(sets, rows, champion=champion, recipe=RECIPE).evaluation.test_comparison
    assert blind is not None
    assert blind.champion < compared.champion - 0.2  # what the gate would see without the rules
