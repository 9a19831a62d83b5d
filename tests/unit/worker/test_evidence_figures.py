"""Every figure of the evidence: on which rows it rests, and what it is called."""

from dataclasses import replace

import numpy as np
import pytest

from labelloop.records.evidence import ClassRecall, Comparison, Renaming
from labelloop.records.images import Example, Split
from labelloop.rules.intervals import wilson
from retrain_worker.evidence.answers import PairedAnswers, best_renaming, paired, pre_labels, recalls
from retrain_worker.evidence.collect import LabelSets, Recipe, Side, refresh_evidence, retrain_evidence
from retrain_worker.heads.calibration import expected_calibration_error
from tests.unit.worker.test_evidence import RECIPE, TRUTH, examples, rows


def test_all_figures_rest_on_the_judged_rows() -> None:
    conflict = [Example(900 + i, f"u23{i}", "one picture", Split.TRAIN, "ab"[i]) for i in range(2)]
    other = [Example(910 + i, f"u22{i}", "another picture", Split.TRAIN, "ab"[i]) for i in range(2)]
    recipe = Recipe(choosable=("a", "b", "c", "owl"))
    found = refresh_evidence(LabelSets([*examples(0, 60), *conflict, *other]), rows, champion=None, recipe=recipe)
    e = found.evaluation
    assert e.missing == ("owl",)
    assert e.conflicts == ("u220", "u221", "u230", "u231")
    assert e.accuracy is not None
    assert (e.accuracy_low, e.accuracy_high) == pytest.approx(wilson(round(e.accuracy * 60), 60))
    given = np.array(["abc".index(TRUTH[u]) for u in sorted(TRUTH)[:60]])
    right = {name: sum(r.right for r in e.recognised if r.name == name) for name in "abc"}
    assert [(r.name, r.n) for r in e.recognised] == [("a", 20), ("b", 20), ("c", 20)]
    assert sum(right.values()) == round(e.accuracy * 60)
    assert e.ece == pytest.approx(expected_calibration_error(found.fitted.oof, given))
    assert e.log_loss == pytest.approx(float(-np.log(found.fitted.oof[np.arange(60), given]).mean()), rel=1e-3)
    assert e.shown is not None
    assert e.shown.right + e.shown.wrong + e.shown.hidden + e.shown.only == 60
    served = found.fitted.head.probabilities(rows(sorted(TRUTH)[:60])).argmax(axis=1)
    assert e.known_accuracy == pytest.approx((served == given).mean())
    assert e.renaming is not None
    assert e.renaming.accuracy >= e.known_accuracy


def test_the_test_bucket_gives_its_share_with_its_bound() -> None:
    sets = LabelSets([*examples(0, 60), *examples(60, 100, bucket=Split.TEST)])
    e = refresh_evidence(sets, rows, champion=None, recipe=Recipe()).evaluation
    assert e.test_accuracy is not None
    assert e.test_high == pytest.approx(wilson(round(e.test_accuracy * 40), 40)[1])
    assert e.test_comparison is None


def test_weights_of_labels_reach_the_head() -> None:
    plain = refresh_evidence(LabelSets(examples(0, 60)), rows, champion=None, recipe=RECIPE).fitted.head
    same = [replace(e, weight=1.0) for e in examples(0, 60)]
    heavy = [replace(e, weight=5.0 if e.label == "a" else 1.0) for e in examples(0, 60)]
    assert refresh_evidence(LabelSets(same), rows, champion=None, recipe=RECIPE).fitted.head.dump() == plain.dump()
    weighted = refresh_evidence(LabelSets(heavy), rows, champion=None, recipe=RECIPE).fitted.head
    assert (
        weighted.probabilities(rows(sorted(TRUTH)))[:, 0].sum() > plain.probabilities(rows(sorted(TRUTH)))[:, 0].sum()
    )


def test_what_both_are_compared_on_is_named() -> None:
    sets = LabelSets([*examples(0, 60), *examples(180, 200, bucket=Split.TEST)], champion=examples(0, 40))
    champion = refresh_evidence(LabelSets(examples(0, 40)), rows, champion=None, recipe=RECIPE).fitted.head
    e = refresh_evidence(sets, rows, champion=champion, recipe=RECIPE).evaluation
    assert e.comparison is not None
    assert e.earlier is not None
    assert e.test_comparison is not None
    assert (e.comparison.on, e.test_comparison.on) == ("train labels, out of fold", "labels of the random test split")
    assert (e.earlier.on, e.earlier.n) == ("labels that both have learned", 40)
    assert e.earlier.low < e.earlier.difference < e.earlier.high
    saw = frozenset(x.group for x in examples(0, 40))
    side = Side(champion, rows)
    later = retrain_evidence(sets, rows, champion=side, recipe=replace(RECIPE, backbone_saw=saw)).evaluation
    assert later.comparison is not None
    assert later.comparison.on == "labels given since, that neither had learned"


def test_classes_that_only_the_challenger_knows_cost_no_recall() -> None:
    """It finds fewer of the earlier ones as it now has more names to give: asked for theirs alone it loses nothing."""
    two = [e for e in examples(0, 60) if e.label != "c"]
    champion = refresh_evidence(LabelSets(two), rows, champion=None, recipe=RECIPE).fitted.head
    sets = LabelSets([*examples(0, 90), *examples(150, 240, bucket=Split.TEST)], champion=two)
    saw = frozenset(e.group for e in examples(0, 30))
    for e in (
        refresh_evidence(sets, rows, champion=champion, recipe=RECIPE).evaluation,
        retrain_evidence(
            sets, rows, champion=Side(champion, rows), recipe=replace(RECIPE, backbone_saw=saw)
        ).evaluation,
    ):
        found = {r.name: r for r in e.recalls}
        assert set(found) == set("abc")
        for name in "ab":
            assert found[name].among is not None
            assert found[name].among >= found[name].challenger
        assert found["c"].among == 0.0  # of no concern to who does not know it
        assert found["c"].challenger > 0.5


SURE = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0], [0.7, 0.3, 0.0], [0.0, 0.0, 1.0]], np.float32)


def test_what_people_would_have_been_shown() -> None:
    """Two answers are right, one is wrong, one is hidden; one label is the only one of its class."""
    given = np.array([0, 1, 1, 2, 0])
    unseen = np.array([0.1, 0.1, 0.1, 0.9, 0.9], np.float32)
    found = pre_labels(SURE, unseen, given)
    assert (found.right, found.wrong, found.hidden, found.only) == (2, 1, 0, 2)
    assert found.majority == pytest.approx(2 / 3)
    shown = pre_labels(SURE, np.zeros(5, np.float32), given)
    assert (shown.right, shown.wrong, shown.hidden, shown.only) == (2, 3, 0, 0)
    nothing = pre_labels(SURE, np.ones(5, np.float32), given)
    assert (nothing.right, nothing.wrong, nothing.hidden, nothing.only, nothing.majority) == (0, 0, 3, 2, 0.0)
    always = pre_labels(SURE, None, given)  # no class lacks a label: what was learned is shown
    assert (always.right, always.wrong, always.hidden, always.only) == (2, 1, 0, 2)


def test_exchanged_names_are_found() -> None:
    given, answers = np.array([0, 0, 1, 1, 2, 2, 2]), np.array([1, 1, 0, 0, 2, 2, 0])
    found = best_renaming(given, answers, ("cat", "dog", "owl"))
    assert found.names == ("cat → dog", "dog → cat")
    assert found.accuracy == pytest.approx(6 / 7)
    assert best_renaming(given, given, ("cat", "dog", "owl")) == Renaming(1.0, ())
    assert best_renaming(np.array([0]), np.array([0]), ("cat", "dog")).accuracy == 1.0


def test_nothing_in_common_leaves_the_interval_open() -> None:
    empty = np.array([], dtype=np.str_)
    found = paired(empty, champion=empty, challenger=empty, on="nothing")
    assert found == Comparison("nothing", 0, 0.0, 0.0, 0.0, -1.0, 1.0, 0)
    assert PairedAnswers.none().compared("nothing") == found
    assert recalls(PairedAnswers.none()) == ()


def test_a_recall_without_a_champion_is_told_with_its_bound() -> None:
    truth, ours = np.array(list("aaab")), np.array(list("aabb"))
    assert recalls(PairedAnswers(truth, ours, None)) == (
        ClassRecall("a", 3, pytest.approx(2 / 3), wilson(2, 3)[1]), ClassRecall("b", 1, 1.0, wilson(1, 1)[1]),
    )  # fmt: skip
