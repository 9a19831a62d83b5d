"""Related images count as many as they are worth: simulated coverage, and nothing changes where none are related."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from labelloop.records.evidence import PreLabels
from labelloop.records.images import Example, Split
from labelloop.rules.gate.paired import few_level
from labelloop.rules.intervals import wilson
from labelloop.rules.paired_intervals import paired_interval
from retrain_worker.evidence.answers import PairedAnswers, paired, pre_labels, recalls, surprise
from retrain_worker.evidence.clusters import (
    Clusters,
    Doubles,
    clusters_of,
    difference_interval,
    independent,
    share_interval,
)
from retrain_worker.evidence.collect import LabelSets, one_per_picture, one_per_unit, refresh_evidence
from tests.unit.worker.test_evidence import RECIPE, examples, rows

RUNS = 400


def chances(rng: np.random.Generator, clusters: Clusters, mean: float, correlation: float) -> Doubles:
    """How likely each image is right (n,): the same within a group, beta-distributed over groups."""
    spread = (1 - correlation) / correlation
    return rng.beta(mean * spread, (1 - mean) * spread, clusters.count)[clusters.codes]


def covers(bounds: list[tuple[float, float]], truth: float) -> float:
    return float(np.mean([low <= truth <= high for low, high in bounds]))


@pytest.mark.parametrize("once", [True, False], ids=["a group speaks once", "images count alike"])
@pytest.mark.parametrize(("groups", "mean"), [(10, 0.8), (30, 0.5), (30, 0.9), (80, 0.8)])
def test_a_share_of_strongly_related_images_is_covered(groups: int, mean: float, once: bool) -> None:
    rng, bounds, naive = np.random.default_rng(7), [], []
    for _ in range(RUNS):
        sizes = rng.integers(1, 21, groups)
        names = np.repeat(np.arange(groups), sizes).astype(np.str_)
        clusters = clusters_of(names, once=np.full(len(names), once))
        right = rng.random(len(names)) < chances(rng, clusters, mean, 0.7)
        bounds.append(share_interval(right, clusters))
        naive.append(wilson(int(right.sum()), len(right)))
    assert covers(bounds, mean) >= 0.925
    assert covers(naive, mean) < 0.7


@pytest.mark.parametrize("groups", [10, 30, 80])
def test_a_difference_of_strongly_related_images_is_covered(groups: int) -> None:
    rng, bounds, naive, truth = np.random.default_rng(11), [], [], 0.25 - 0.75 * 0.1
    for _ in range(RUNS):
        names = np.repeat(np.arange(groups), rng.integers(1, 21, groups)).astype(np.str_)
        clusters = clusters_of(names, once=np.ones(len(names), dtype=np.bool_))
        gained = rng.random(len(names)) < chances(rng, clusters, 0.25, 0.8)
        lost = ~gained & (rng.random(len(names)) < chances(rng, clusters, 0.1, 0.8))
        bounds.append(difference_interval(gained.astype(np.float64) - lost, clusters))
        naive.append(paired_interval(int(gained.sum()), int(lost.sum()), len(names)))
    assert covers(bounds, truth) >= 0.93
    assert covers(naive, truth) < 0.7


def test_a_test_of_few_labels_that_are_related_errs_no_more_often_than_it_says() -> None:
    """Pre-labels that are right as often as wrong: one in ten may be taken for good."""
    rng, level, naive = np.random.default_rng(13), [], []
    for _ in range(1000):
        names = np.repeat(np.arange(8), rng.integers(1, 9, 8)).astype(np.str_)
        clusters = clusters_of(names)
        right = rng.random(len(names)) < chances(rng, clusters, 0.5, 0.8)
        n, hits = len(right), int(right.sum())
        level.append(few_level(PreLabels(hits, n - hits, 0, 0, 0.4, min(independent(right, clusters), n))))
        naive.append(few_level(PreLabels(hits, n - hits, 0, 0, 0.4)))
    assert np.mean(np.array(level) < 0.1) < 0.13
    assert np.mean(np.array(naive) < 0.1) > 0.2


def test_images_of_no_group_count_as_ever() -> None:
    rng = np.random.default_rng(3)
    truth, before, after = (rng.choice(np.array(["a", "b", "c"]), 60) for _ in range(3))
    apart = clusters_of([f"g{i}" for i in range(60)], once=np.ones(60, dtype=np.bool_))
    plain = paired(truth, champion=before, challenger=after, on="x")
    assert paired(truth, champion=before, challenger=after, on="x", clusters=apart) == plain
    right = after == truth
    assert share_interval(right, apart) == wilson(int(right.sum()), 60)
    gained, lost = int((right & (before != truth)).sum()), int((~right & (before == truth)).sum())
    difference = right.astype(np.float64) - (before == truth)
    assert difference_interval(difference, apart) == pytest.approx(paired_interval(gained, lost, 60))
    grouped = PairedAnswers(truth, after, before, None, np.arange(60).astype(np.str_), np.ones(60, dtype=np.bool_))
    assert recalls(grouped) == recalls(PairedAnswers(truth, after, before))
    p, q = (rng.dirichlet(np.ones(3), 60).astype(np.float32) for _ in range(2))
    codes = rng.integers(0, 3, 60)
    assert surprise(codes, champion=p, challenger=q, on="x", clusters=apart) == surprise(
        codes, champion=p, challenger=q, on="x"
    )
    shown = pre_labels(p, None, codes)
    assert pre_labels(p, None, codes, np.arange(60).astype(np.str_)) == shown
    assert shown.independent is None
    assert few_level(PreLabels(9, 3, 0, 0, 0.4)) == pytest.approx((79 + 110) / 4096)  # of 12 tosses, mid-p


def test_a_group_of_copies_says_no_more_than_one_of_them() -> None:
    truth, ours = np.array(["a", "b"] * 10), np.array(["a"] * 20)
    theirs = np.array(["b"] * 20)
    names, once = np.arange(20).astype(np.str_), np.ones(20, dtype=np.bool_)
    one = PairedAnswers(truth, ours, theirs, None, names, once)
    many = PairedAnswers(*(np.repeat(column, 30) for column in (truth, ours, theirs, ours, names, once)))
    plain, found = one.compared("x"), many.compared("x")
    assert plain is not None
    assert found is not None
    assert (found.n, found.difference) == (plain.n, pytest.approx(plain.difference))
    assert found.high - found.low >= plain.high - plain.low
    assert [(r.name, r.n) for r in recalls(many)] == [("a", 10), ("b", 10)]
    assert recalls(many)[0].high >= recalls(one)[0].high


def test_every_picture_of_a_patient_speaks_and_copies_are_one() -> None:
    given = [(1, "a", "x"), (2, "a", "x"), (3, "b", "y"), (4, "c", "x"), (5, "c", "y")]
    taken = [Example(n, f"u{n}", "patient", Split.TEST, label, twin=twin) for n, twin, label in given]
    assert [e.uri for e in one_per_picture(taken)[0]] == ["u1", "u3"]
    assert one_per_picture(taken)[1] == ("u4", "u5")
    assert [e.uri for e in one_per_unit(taken)[0].values()] == ["u1"]


def patients(count: int, bucket: Split) -> list[Example]:
    """So many images, twelve of each patient."""
    given = examples(0, count, bucket=bucket)
    return [replace(e, group=f"{bucket}-{i // 12}", twin=e.uri) for i, e in enumerate(given)]


SWAPPED = {"a": "b", "b": "c", "c": "a"}


def test_the_gate_sees_patients_and_not_their_images() -> None:
    """The head is wrong about every image of half of the test patients."""
    train, test = examples(0, 60), [replace(e, uri=f"u{i + 60:03d}") for i, e in enumerate(patients(120, Split.TEST))]
    given = [replace(e, label=SWAPPED[e.label]) if int(e.group[-1]) % 2 else e for e in test]
    assert len({e.group for e in given}) == 10
    found = refresh_evidence(LabelSets([*train, *given]), rows, champion=None, recipe=RECIPE).evaluation
    apart = [replace(e, group=e.uri) for e in given]
    naive = refresh_evidence(LabelSets([*train, *apart]), rows, champion=None, recipe=RECIPE).evaluation
    assert (found.test_n, naive.test_n) == (10, 120)
    assert found.test_accuracy == pytest.approx(naive.test_accuracy)
    assert found.test_high is not None
    assert naive.test_high is not None
    assert found.test_high > naive.test_high + 0.1


def test_a_first_model_of_few_patients_is_less_sure_of_itself() -> None:
    patients_of = patients(60, Split.TRAIN)
    given = [replace(e, label=SWAPPED[e.label]) if e.group.endswith("4") else e for e in patients_of]
    apart = [replace(e, group=e.uri) for e in given]
    found, naive = (
        refresh_evidence(LabelSets(one), rows, champion=None, recipe=RECIPE).evaluation for one in (given, apart)
    )
    assert found.judged_on == naive.judged_on == 60
    assert found.accuracy_low is not None
    assert naive.accuracy_low is not None
    assert found.accuracy_low < naive.accuracy_low - 0.1
    assert found.shown is not None
    assert found.shown.independent is not None
    assert found.shown.independent < 30
