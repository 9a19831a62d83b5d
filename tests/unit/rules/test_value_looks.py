"""What was before a person, and what they did about it: from answers as a snapshot holds them."""

from __future__ import annotations

from dataclasses import replace

from labelloop.records.tasks import Seen
from labelloop.rules.schema import LabelRules
from labelloop.rules.value import Look, Showing, looks_of
from tests.unit.worlds.value import answer, at, task

SHOWN = Seen("v1", "cat", probability=0.6)
HIDDEN = Seen("v1", "cat", blind=True, probability=0.6, chosen=True)
DRAWN = Seen("v1", "cat", blind=True, probability=0.9)


def only(*found: Look) -> Look:
    (look,) = found
    return look


def test_one_look_of_each_kind() -> None:
    tasks = [task(1, "cat", SHOWN, lead_time_s=2.5), task(2, "dog", HIDDEN), task(3, "cat", DRAWN)]
    first, second, third = looks_of(tasks)
    assert first == Look(1, 7, at(1), Showing.SHOWN, "cat", 0.6, "cat", departed=False, seconds=2.5)
    assert first.accepted
    assert (second.kind, second.departed, second.accepted) == (Showing.HIDDEN, True, False)
    assert (third.kind, third.departed, third.accepted) == (Showing.DRAWN, False, False)


def test_the_oldest_comes_first() -> None:
    assert [look.task for look in looks_of([task(3, "cat", SHOWN), task(1, "cat", SHOWN), task(2, "cat", DRAWN)])] == [
        1, 2, 3]  # fmt: skip


def test_what_tells_nothing_is_left_out() -> None:
    cold = Seen("cold-start", None, blind=True)
    left_out = [
        task(1, "cat", None), task(2, "cat", cold), task(3, "cat", SHOWN, seed=True),
        task(4, None, SHOWN, problem="2 classes chosen, one is expected"), task(5, None, SHOWN),
        task(6, None, HIDDEN, cancelled=True),
    ]  # fmt: skip
    assert looks_of(left_out) == []


def test_a_skip_of_a_pre_label_is_no_acceptance() -> None:
    look = only(*looks_of([task(1, None, SHOWN, cancelled=True)]))
    assert look.departed
    assert look.skipped
    assert not look.accepted


def test_each_persons_answer_to_a_task_is_a_look() -> None:
    both = replace(task(1, "cat", SHOWN), annotations=(answer(1, "cat", SHOWN), answer(2, "dog", SHOWN, by=8)))
    assert [(look.who, look.departed, look.right) for look in looks_of([both])] == [(7, False, False), (8, True, False)]


def test_a_ground_truth_outranks_a_second_answer() -> None:
    answers = (answer(1, "cat", SHOWN), answer(2, "dog", by=8), answer(3, "cat", by=9, ground_truth=True))
    look = only(*looks_of([replace(task(1, "cat", SHOWN), annotations=answers)]))
    assert look.right
    assert only(*looks_of([task(1, "cat", SHOWN)])).right is None


def test_what_somebody_else_corrected_was_given_otherwise() -> None:
    corrected = task(1, "dog", SHOWN, given="cat", changed_by=9)
    look = only(*looks_of([corrected]))
    assert (look.said, look.departed, look.corrected) == ("cat", False, True)


def test_classes_count_as_they_do_now_and_departures_as_they_did_then() -> None:
    rules = LabelRules({"dog": "cat", "owl": None, "puma": "cat"})
    merged = only(*looks_of([task(1, "dog", SHOWN)], rules))  # a correction then; one class now
    assert (merged.predicted, merged.said, merged.departed) == ("cat", "cat", True)
    dropped = only(*looks_of([task(1, "owl", SHOWN)], rules))
    assert (dropped.said, dropped.departed, dropped.skipped) == (None, True, False)
    older = only(*looks_of([task(1, "cat", replace(HIDDEN, label="puma"))], rules))  # hidden under its older name
    assert not older.departed


def test_a_time_that_nobody_measured_is_none() -> None:
    assert only(*looks_of([task(1, "cat", SHOWN, lead_time_s=0.0)])).seconds is None
    assert only(*looks_of([task(1, "cat", SHOWN)])).seconds is None
