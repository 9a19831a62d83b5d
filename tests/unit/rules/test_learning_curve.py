"""Forecasts from made-up curves whose truth is known: they lie in their intervals, and say when they know little."""

from __future__ import annotations

import numpy as np
import pytest

from labelloop.records.curve import Points
from labelloop.rules.learning_curve import FAR, ForecastCurve, ForecastInterval, curve_of
from tests.unit.worlds.curve import LABELS, points, power

TRUTHS = {
    "a power law": power(0.3, 0.5),
    "with a floor": power(0.3, 0.8, 0.1),
    "steep": power(0.4, 1.1),
    "flat": power(0.15, 0.02),
}


def holds(found: ForecastInterval, truth: float) -> tuple[bool, bool]:
    return found.low <= truth <= found.high, found.lowest <= truth <= found.highest


@pytest.mark.parametrize("name", TRUTHS)
@pytest.mark.parametrize("images", [30, 120])
def test_what_comes_true_lies_in_the_intervals_as_often_as_they_say(name: str, images: int) -> None:
    error = TRUTHS[name]
    found = []
    for seed in range(60):
        curve = curve_of(points(error, images, seed=seed))
        found += [holds(curve.accuracy(more), 1 - error(LABELS[-1] + more)) for more in (100, 200)]
    in_80, in_95 = np.mean(found, axis=0)
    assert in_80 >= 0.72
    assert in_95 >= 0.89


def test_more_random_labels_make_it_narrower() -> None:
    few, many = (curve_of(points(TRUTHS["a power law"], n)).accuracy(100) for n in (30, 1000))
    assert many.width < 0.5 * few.width


def test_it_is_nearer_to_the_truth_than_the_last_value() -> None:
    error = TRUTHS["a power law"]
    ours, last = [], []
    for seed in range(40):
        given = points(error, 60, seed=seed)
        truth = 1 - error(LABELS[-1] + 200)
        ours.append(abs(curve_of(given).accuracy(200).middle - truth))
        last.append(abs(1 - given.wrong[:, -1].mean() - truth))
    assert np.mean(ours) < np.mean(last)


def test_what_is_hard_for_all_versions_moves_the_level_and_hardly_the_gain() -> None:
    """Paired: ten images that nobody gets right are a matter of the draw, not of the labels."""
    given = points(TRUTHS["a power law"], 100)
    harder = Points(given.labels, np.concatenate([given.wrong, np.ones((10, len(LABELS)))]))
    before, after = curve_of(given), curve_of(harder)
    assert before.accuracy().middle - after.accuracy().middle > 0.05
    assert after.gain(100).middle == pytest.approx(before.gain(100).middle, abs=0.012)


def test_a_flat_curve_promises_nothing() -> None:
    curve = curve_of(points(lambda _: 0.1, 400))
    assert curve.gain(100).middle < 0.005
    assert curve.gain(100).lowest >= 0.0
    reach = curve.to(0.97)
    assert (reach.middle, reach.high) == (None, None)


def test_labels_to_a_target() -> None:
    error = power(0.3, 0.5)
    curve = curve_of(points(error, 20_000))
    truth = 100 * (0.3 / 0.12) ** 2 - LABELS[-1]  # until 88 % are right
    reach = curve.to(0.88)
    assert reach.low is not None
    assert reach.high is not None
    assert reach.middle is not None
    assert reach.low <= truth <= reach.high
    assert reach.middle == pytest.approx(truth, rel=0.5)
    assert curve.to(0.5).high == 0
    further = curve.to(0.9)
    assert further.middle is None or further.middle > reach.middle


def test_nothing_is_said_of_what_is_far() -> None:
    curve = curve_of(points(TRUTHS["flat"], 200))
    assert curve.horizon == int((FAR - 1) * LABELS[-1])
    assert all(found is None or found <= curve.horizon for target in (0.8, 0.9, 0.99)
               for found in (curve.to(target).middle, curve.to(target).high))  # fmt: skip


def test_labels_that_train_nothing_are_counted_too() -> None:
    given = points(TRUTHS["a power law"], 200)
    all_train, half = curve_of(given), curve_of(given, share=0.5)
    assert half.gain(200).middle == pytest.approx(all_train.gain(100).middle)
    assert half.horizon == 2 * all_train.horizon


def test_all_right_proves_little_where_there_are_few() -> None:
    found = curve_of(Points(np.array([40.0, 80.0]), np.zeros((20, 2)))).accuracy()
    assert found.lowest < 0.9
    assert found.highest > 0.99


def test_one_version_is_enough_for_a_wide_forecast() -> None:
    given = points(TRUTHS["a power law"], 60, labels=[100])
    one, all_of_them = curve_of(given), curve_of(points(TRUTHS["a power law"], 60))
    assert one.gain(100).width > all_of_them.gain(100).width
    assert 0 <= one.gain(100).low < one.gain(100).high


def test_it_is_the_same_again_and_in_any_order_of_the_images() -> None:
    given = points(TRUTHS["steep"], 50)
    mixed = Points(given.labels, given.wrong[np.random.default_rng(1).permutation(50)])
    assert curve_of(given).accuracy(100) == curve_of(given).accuracy(100) == curve_of(mixed).accuracy(100)


def test_versions_with_the_same_labels_and_very_early_ones_do_no_harm() -> None:
    labels = [3, 5, 40, 40, 40, 80, 120, 200, 300, 400, 400]
    curve = curve_of(points(lambda n: 0.9 if n < 10 else TRUTHS["steep"](n), 80, labels=labels))
    assert holds(curve.accuracy(100), 1 - TRUTHS["steep"](500))[1]


def test_thousands_of_random_labels_are_no_burden() -> None:
    """Images that all versions treat alike are counted, not listed."""
    found: ForecastCurve = curve_of(points(TRUTHS["steep"], 20_000))
    assert found.images == 20_000
    assert found.accuracy().width < 0.03
