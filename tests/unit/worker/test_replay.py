import json
from dataclasses import replace

import numpy as np
import pytest

from cli.views.replay import as_json, plot_replay, replay_view
from labelloop.errors import NotEnoughLabelsError
from retrain_worker.replay.arm import ArmCurve, ChoiceRequest, by_policy, checkpoints, mean_curve, run_arm
from retrain_worker.replay.comparison import compare, reached
from retrain_worker.replay.history import Ints, LabelledImages, ReplayHistory, draw
from retrain_worker.replay.rounds import ReplayPlan, replay
from retrain_worker.replay.student import Student

RNG = np.random.default_rng(0)


def blobs(n: int, *, rare: bool = False) -> LabelledImages:
    """Six classes in sixteen dimensions; ``rare``: of four of them there are few."""
    shares = [0.4, 0.4, 0.05, 0.05, 0.05, 0.05] if rare else [1 / 6] * 6
    truth = RNG.choice(6, n, p=shares)
    rows = 4 * np.eye(6, 16)[truth] + RNG.normal(size=(n, 16))
    return LabelledImages(rows.astype(np.float32), truth.astype(np.int64), [f"g{i // 2}" for i in range(n)])


HISTORY = ReplayHistory("blobs", tuple("abcdef"), blobs(600, rare=True))


def test_a_draw_parts_no_group_and_depends_on_the_seed() -> None:
    one, other = draw(HISTORY, 1), draw(HISTORY, 2)
    assert not set(one.pool.groups) & set(one.test.groups)
    assert set(one.test.groups) != set(other.test.groups)
    np.testing.assert_array_equal(one.pool.labels, draw(HISTORY, 1).pool.labels)
    assert 0.15 < len(one.test.labels) / 600 < 0.35


def test_what_is_held_out_judges_every_seed_and_the_pool_still_varies() -> None:
    held = replace(HISTORY, held_out=blobs(100))
    one, other = draw(held, 1), draw(held, 2)
    np.testing.assert_array_equal(one.test.labels, other.test.labels)
    assert one.pool.groups != other.pool.groups


def test_too_few_images_are_refused_in_words() -> None:
    with pytest.raises(NotEnoughLabelsError, match="a replay needs 40"):
        draw(ReplayHistory("few", ("a",), blobs(12)), 0)


def test_checkpoints_come_every_ten_and_then_every_tenth() -> None:
    found = checkpoints(300)
    assert found[:10] == tuple(range(10, 110, 10))
    assert found[10:] == (110, 121, 133, 146, 160, 176, 193, 212, 233, 256, 281)


def test_a_student_learns_and_says_so() -> None:
    drawn = draw(HISTORY, 0)
    student = Student.of(drawn, 6)
    rows = np.arange(200)
    student.learn(rows, drawn.pool.labels[rows])
    assert student.accuracy() > 0.95
    answers = student.probabilities(student.rows)
    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-4)
    assert (answers.argmax(axis=1) == drawn.pool.labels).mean() > 0.95


@pytest.mark.parametrize("with_pool", [True, False])
def test_a_student_who_knows_one_class_is_sure_of_it(with_pool: bool) -> None:
    drawn = draw(HISTORY, 0)
    student = Student.of(drawn, 6, with_pool=with_pool)
    rows = np.flatnonzero(drawn.pool.labels == 1)[:10]
    student.learn(rows, drawn.pool.labels[rows])
    np.testing.assert_array_equal(student.probabilities(student.rows), np.eye(6)[[1] * len(student.rows)])
    assert student.accuracy() == (drawn.test.labels == 1).mean()


def test_a_student_never_names_a_class_it_was_not_told() -> None:
    drawn = draw(HISTORY, 0)
    student = Student.of(drawn, 6)
    rows = np.flatnonzero(drawn.pool.labels < 2)[:40]
    student.learn(rows, drawn.pool.labels[rows])
    assert set(student.probabilities(student.rows).argmax(axis=1)) == {0, 1}


@pytest.mark.parametrize("policy", ["auto", "random", "cluster-margin"])
def test_an_arm_repeats_itself_and_never_asks_twice(policy: str) -> None:
    drawn, asked = draw(HISTORY, 0), []
    student = Student.of(drawn, 6)

    def spy(question: ChoiceRequest) -> Ints:
        asked.append(by_policy(policy)(question))
        return asked[-1]

    first = run_arm(drawn, replace(student), spy, most=80, seed=3)
    again = run_arm(drawn, replace(student), by_policy(policy), most=80, seed=3)
    assert first == again
    assert len(np.unique(np.concatenate(asked))) == 80


def test_covering_finds_rare_classes_before_chance_does() -> None:
    found = replay(
        HISTORY, {name: by_policy(name) for name in ("random", "auto")}, ReplayPlan(seeds=5, most=60), lambda *_: None
    )
    means = found.means()
    assert means["auto"].accuracy[1] > means["random"].accuracy[1]
    best = found.savings()[0]
    assert best.strategy == "auto"
    assert best.times_fewer.value > 1.2
    assert best.gain.value > 0.01


def test_labels_to_reach_lie_between_checkpoints_and_lucky_ones_do_not_count() -> None:
    n = np.array([10.0, 20.0, 30.0, 40.0])
    assert reached(n, np.array([0.1, 0.3, 0.5, 0.7]), 0.4) == 25
    assert reached(n, np.array([0.1, 0.3, 0.5, 0.7]), 0.05) == 10
    assert reached(n, np.array([0.1, 0.3, 0.5, 0.7]), 0.8) == np.inf
    assert reached(n, np.array([0.1, 0.9, 0.3, 0.65]), 0.62) > 30


def test_random_against_itself_saves_nothing() -> None:
    curves = [ArmCurve((10, 20, 30), (0.2, 0.4 + 0.01 * k, 0.5)) for k in range(5)]
    same = compare(curves, curves, "random")
    assert same.times_fewer.value == same.times_fewer.low == same.times_fewer.high == 1
    assert same.gain.value == same.worst.value == 0


def test_an_order_that_never_arrives_is_said_to_never_arrive() -> None:
    random = [ArmCurve((10, 20, 30), (0.2, 0.4, 0.6))] * 3
    bad = [ArmCurve((10, 20, 30), (0.1, 0.2, 0.3))] * 3
    found = compare(bad, random, "bad")
    assert found.labels == np.inf
    assert found.times_fewer.value == 0
    assert found.worst_at == 30
    assert found.worst.value == pytest.approx(-0.3)


def test_curves_are_cut_to_a_budget_and_to_the_shortest() -> None:
    long, short = ArmCurve((10, 20, 30), (0.1, 0.2, 0.3)), ArmCurve((10, 20), (0.3, 0.4))
    assert long.until(25) == ArmCurve((10, 20), (0.1, 0.2))
    assert mean_curve([long, short]).accuracy == pytest.approx((0.2, 0.3))


def test_seeds_may_begin_anywhere() -> None:
    """So that a long run can be shared out and goes on where it was stopped."""
    chooser = {"random": by_policy("random")}
    both, second = (
        replay(HISTORY, chooser, plan, lambda *_: None).curves["random"]
        for plan in (ReplayPlan(seeds=2, most=40), ReplayPlan(seeds=1, most=40, first=1))
    )
    assert second == [both[1]]
    assert both[0] != both[1]


def test_what_was_found_is_shown_drawn_and_written(tmp_path) -> None:  # type: ignore[no-untyped-def]
    found = replay(
        HISTORY,
        {name: by_policy(name) for name in ("random", "herding")},
        ReplayPlan(seeds=2, most=40),
        lambda *_: None,
    )
    from rich.console import Console

    console = Console(width=200, record=True)
    console.print(replay_view(found))
    text = console.export_text()
    assert "herding" in text
    assert "times fewer" in text
    assert json.loads(json.dumps(as_json(found)))["curves"]["herding"][0]["labels"][0] == 10
    plot_replay(found, tmp_path / "found.svg")
    assert (tmp_path / "found.svg").stat().st_size > 5000
