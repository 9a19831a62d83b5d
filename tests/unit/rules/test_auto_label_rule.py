"""What a model may label alone: the promise is kept where it is given, and thin evidence is refused in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import binom, hypergeom

from labelloop.records.arrays import Floats
from labelloop.rules.auto_label.rule import Audit, AutoLabelDecision, Bools, Ints, PoolAnswers, Promise, decide, few

P95, P99 = Promise(), Promise(precision=0.99)


@dataclass
class Images:
    """All images with what the model says of them, and whether it is right."""

    sureness: Floats
    wrong: Bools
    classes: Ints

    def answers(self, rows: Ints) -> PoolAnswers:
        return PoolAnswers(self.classes[rows], self.sureness[rows])

    def decide(self, audit: int, seed: int, promise: Promise = P95, gone: int = 0) -> tuple[AutoLabelDecision, float]:
        """By so many audit images drawn at random; and how many of the labels given are right.

        ``gone``: the model is right about so many others, and people have labelled just these.
        """
        draw = np.random.default_rng(seed).permutation(len(self.wrong))
        sample, rest = draw[:audit], draw[audit:]
        easy = rest[~self.wrong[rest]][:gone]
        rest = np.setdiff1d(rest, easy)
        found = decide(Audit(self.answers(sample), self.wrong[sample], len(draw)), self.answers(rest), promise)
        wrong = self.wrong[rest][found.accepts(self.answers(rest))]
        return found, 1.0 if not len(wrong) else 1 - float(wrong.mean())


def images(count: int, *, error: float, seed: int = 0, below: float = 1.0, classes: int = 1) -> Images:
    """Evenly spread sureness; wrong at random, and only where the sureness lies below ``below``."""
    draw = np.random.default_rng(seed)
    sureness = draw.random(count).astype(np.float32)
    wrong = (draw.random(count) < error) & (sureness < below)
    return Images(sureness, wrong, draw.integers(0, classes, count))


def test_a_model_that_is_always_right_labels_everything() -> None:
    found, _ = images(8000, error=0).decide(400, 1)
    assert found.coverage == 1.0
    (part,) = found.parts
    assert (part.audit, part.wrong, part.labelled) == (400, 0, 7600)
    assert part.bound == pytest.approx(1 - 3 / 400, abs=0.002)  # the rule of three


@pytest.mark.parametrize(("promise", "least"), [(P95, 59), (P99, 299), (Promise(0.95, 0.99), 90)])
def test_the_least_that_can_carry_a_promise(promise: Promise, least: int) -> None:
    everything = images(200_000, error=0)
    assert promise.least == least
    assert everything.decide(least, 1, promise)[0].coverage == 1.0
    found, _ = everything.decide(least - 1, 1, promise)
    assert found.labelled == 0
    assert found.parts[0].further is not None
    assert "needs" in found.why(found.parts[0])


def test_labels_are_given_down_to_where_errors_begin() -> None:
    found, right = images(20_000, error=0.5, below=0.4).decide(400, 2)
    threshold = found.parts[0].threshold
    assert threshold is not None
    assert 0.3 < threshold < 0.45
    assert 0.55 < found.coverage < 0.7
    assert right >= 0.95


def test_a_refusal_tells_what_would_do_and_that_is_enough() -> None:
    found, _ = images(20_000, error=0.02).decide(400, 3, P99)
    assert found.labelled == 0
    why = found.why(found.parts[0])
    assert "needs 299 of 400 without an error" in why
    better = images(20_000, error=0.015)
    found, _ = better.decide(80, 4)
    further = found.parts[0].further
    assert further
    assert f"about {further} more audit labels needed" in found.why(found.parts[0])
    assert np.mean([better.decide(80 + further, seed)[0].labelled > 0 for seed in range(20)]) > 0.5


def test_where_the_model_is_too_bad_no_number_of_audit_labels_is_named() -> None:
    found, _ = images(5000, error=0.3).decide(400, 1)
    assert found.labelled == 0
    assert found.parts[0].further is None
    assert "the model must improve first" in found.why(found.parts[0])


def test_no_pool_and_no_audit_labels() -> None:
    nothing = PoolAnswers(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
    empty = Audit(nothing, np.zeros(0, dtype=np.bool_), 0)
    found = decide(empty, nothing, P95)
    assert (found.labelled, found.why(found.parts[0])) == (0, "no image is left to label")
    some = images(500, error=0)
    found, _ = some.decide(0, 1)
    assert found.labelled == 0
    assert "no audit label yet" in found.why(found.parts[0])
    assert decide(Audit(some.answers(np.arange(100)), some.wrong[:100], 100), nothing, Promise()).labelled == 0


def test_equal_sureness_is_one_threshold() -> None:
    same = images(5000, error=0)
    same.sureness[:] = 0.7
    found, _ = same.decide(200, 1)
    assert found.parts[0].threshold == pytest.approx(0.7)
    assert found.coverage == 1.0


# --- the promise


def test_chances_are_those_of_drawing_without_putting_back() -> None:
    bad = np.array([0, 1, 5, 60, 400, 1000])
    for wrong in (0, 3, 40):
        assert few(1000, bad, 300, wrong) == pytest.approx(hypergeom.cdf(wrong, 1000, bad, 300), abs=1e-9)
    assert few(10**6, np.array([50_000]), 400, 12)[0] == pytest.approx(binom.cdf(12, 400, 0.05), rel=0.01)


def kept(everything: Images, audit: int, promise: Promise = P95, *, gone: int = 0, draws: int = 150) -> float:
    """Share of draws of the audit images in which the labels given are as right as was promised."""
    return float(np.mean([everything.decide(audit, s, promise, gone)[1] >= promise.precision for s in range(draws)]))


@pytest.mark.parametrize("error", [0.05, 0.055, 0.07])
def test_the_search_does_not_break_the_promise(error: float) -> None:
    """Every threshold would promise too much here, by little: the hardest case, and forty of them are tried."""
    assert kept(images(6000, error=error), 400) >= 0.95


def test_the_search_does_not_break_the_promise_where_the_surest_are_the_worst() -> None:
    everything = images(6000, error=0.08)
    everything.wrong &= everything.sureness > 0.6
    assert kept(everything, 400) >= 0.95


def test_right_answers_that_people_took_away_do_not_break_the_promise() -> None:
    """2 % errors in all, 6 % in what is left; the audit images alone would say that all may be labelled."""
    everything = images(6000, error=0.02)
    assert kept(everything, 800, gone=3500, draws=50) > 0.9
    broken = 0
    for seed in range(10):
        sample = np.random.default_rng(seed).permutation(6000)[:800]
        rest = np.setdiff1d(np.arange(6000), sample)
        rest = np.setdiff1d(rest, rest[~everything.wrong[rest]][:3500])
        audit = Audit(everything.answers(sample), everything.wrong[sample], len(sample) + len(rest))
        given = decide(audit, everything.answers(rest), P95).accepts(everything.answers(rest))
        broken += int(given.any() and everything.wrong[rest][given].mean() > 0.05)
    assert broken > 5  # as if the people had taken nothing away


# --- classes


def of_two(error: float) -> Images:
    """The model is always right where it says class 0, and not where it says class 1."""
    everything = images(20_000, error=error, classes=2)
    everything.wrong &= everything.classes == 1
    return everything


def test_per_class_a_bad_class_gets_no_labels() -> None:
    everything = of_two(0.2)
    together, _ = everything.decide(1200, 1)
    assert [part.classes for part in together.parts] == [(0, 1)]
    found, _ = everything.decide(1200, 1, Promise(per_class=True))
    assert [part.classes for part in found.parts] == [(0,), (1,)]
    assert [part.labelled > 0 for part in found.parts] == [True, False]


def test_per_class_costs_confidence_of_each() -> None:
    everything = of_two(0.0)
    found, _ = everything.decide(1200, 1, Promise(per_class=True))
    pooled, _ = everything.decide(1200, 1)
    bounds = [part.bound or 0.0 for part in found.parts]
    assert max(bounds) < (pooled.parts[0].bound or 0.0)


def test_classes_with_few_audit_images_share_a_threshold() -> None:
    found, _ = images(20_000, error=0.0, classes=12).decide(400, 1, Promise(per_class=True))
    assert [len(part.classes) for part in found.parts] == [12]
    rare = images(20_000, error=0.0, classes=12)
    rare.classes[rare.sureness < 0.6] = 3
    found, _ = rare.decide(1000, 1, Promise(per_class=True))
    assert [part.classes for part in found.parts] == [(3,), (0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11)]
