"""Shares, times and warnings of the value report, and what is said of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

import pytest

from labelloop.rules.intervals import newcombe
from labelloop.rules.value import Look, Showing, unread_from, value_of, warnings_of
from labelloop.rules.value.words import advice, headline, reasons
from tests.unit.worlds.value import looks_like_one, never_looks, stream


def look(kind: Showing, *, departed: bool = False, **more: object) -> Look:
    return replace(Look(1, 7, "t", kind, "cat", 0.6, "dog" if departed else "cat", departed), **more)  # type: ignore[arg-type]


def timed(kind: Showing, seconds: Sequence[float], who: int = 7) -> list[Look]:
    return [look(kind, seconds=s, who=who) for s in seconds]


def test_newcombe_as_published() -> None:
    """Newcombe 1998, table II, method 10: 56/70 against 48/80, 9/10 against 3/10, 10/10 against 0/10."""
    assert newcombe((56, 70), (48, 80)) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert newcombe((9, 10), (3, 10)) == pytest.approx((0.1705, 0.8090), abs=1e-4)
    assert newcombe((10, 10), (0, 20)) == pytest.approx((0.6791, 1.0), abs=1e-4)
    assert newcombe((3, 4), (0, 0)) == (-1.0, 1.0)


def test_nothing_is_claimed_without_answers() -> None:
    found = value_of([])
    assert found.anchoring.effect is None
    assert found.times.saved is None
    assert (found.drawn.share, found.drawn.low, found.drawn.high) == (None, 0, 1)
    assert (found.classes, found.people, found.warnings) == ((), (), ())


def test_seeing_the_answer_is_compared_on_chosen_images_alone() -> None:
    looks = [look(Showing.SHOWN)] * 9 + [look(Showing.SHOWN, departed=True)] + [look(Showing.DRAWN, departed=True)] * 50
    looks += [look(Showing.HIDDEN)] * 3 + [look(Showing.HIDDEN, departed=True)] * 7
    found = value_of(looks).anchoring
    assert (found.shown.share, found.hidden.share) == (0.9, 0.3)
    assert found.effect is not None
    assert found.effect.value == pytest.approx(0.6)
    assert (found.effect.low, found.effect.high) == pytest.approx((0.1705, 0.8090), abs=1e-4)


def test_a_skip_is_neither_taken_nor_overridden() -> None:
    looks = [look(Showing.SHOWN), look(Showing.SHOWN, departed=True, skipped=True)]
    assert value_of(looks).anchoring.shown.of == 1


def test_minutes_saved_are_each_persons_own() -> None:
    quick = timed(Showing.SHOWN, [2.0] * 60) + timed(Showing.HIDDEN, [3.0] * 6)
    slow = timed(Showing.SHOWN, [10.0] * 6, who=8) + timed(Showing.HIDDEN, [30.0] * 6, who=8)
    found = value_of(quick + slow).times
    assert found.saved is not None
    assert found.saved.value == pytest.approx((60 * 1.0 + 6 * 20.0) / 60)  # medians over both would say 16
    assert (found.people, found.left_out) == (2, 0)


def test_a_break_beside_the_open_page_saves_no_time() -> None:
    hidden = [5.0] * 9
    plain = value_of(timed(Showing.SHOWN, [2.0] * 30) + timed(Showing.HIDDEN, hidden)).times.saved
    after = value_of(timed(Showing.SHOWN, [2.0] * 30) + timed(Showing.HIDDEN, [*hidden, 3600.0])).times.saved
    assert plain is not None
    assert after is not None
    assert after.value == pytest.approx(plain.value)
    assert after.high < 1.01 * plain.value


def test_the_interval_of_saved_minutes_holds_the_truth_and_widens_with_less() -> None:
    few = value_of(timed(Showing.SHOWN, [1, 2, 3] * 20) + timed(Showing.HIDDEN, [2, 4, 6, 3, 5])).times.saved
    many = value_of(timed(Showing.SHOWN, [1, 2, 3] * 20) + timed(Showing.HIDDEN, [2, 4, 6, 3, 5] * 20)).times.saved
    assert few is not None
    assert many is not None
    assert few.low < 2 < few.high
    assert few.high - few.low > many.high - many.low


def test_people_with_too_few_answers_are_left_out_and_counted() -> None:
    looks = timed(Showing.SHOWN, [2.0] * 20) + timed(Showing.HIDDEN, [4.0] * 4)
    found = value_of(looks).times
    assert (found.saved, found.people, found.left_out) == (None, 0, 20)
    assert (found.shown, found.hidden) == (2.0, 4.0)


def test_nobody_saves_time_by_not_looking() -> None:
    looks = [replace(found, seconds=1.0) for found in stream(never_looks, 200)]
    assert value_of(looks).warnings
    assert value_of(looks).times.people == 0
    assert value_of(looks).drawn.of == 0  # their word on the model counts no more either


def test_classes_that_are_surely_overridden_come_first() -> None:
    looks = [look(Showing.SHOWN, departed=True, predicted="owl")]
    looks += [look(Showing.SHOWN, departed=i < 15) for i in range(20)]
    looks += [look(Showing.SHOWN, departed=i < 1, predicted="fox", said="cat" if i < 1 else "fox") for i in range(20)]
    looks += [look(Showing.SHOWN, predicted=None)]  # a class that counts no more
    rows = value_of(looks).classes
    assert [(row.name, row.overrides.hits, row.overrides.of) for row in rows] == [
        ("cat", 15, 20), ("owl", 1, 1), ("fox", 1, 20)]  # fmt: skip
    assert (rows[0].instead, rows[0].times) == ("dog", 15)


def test_what_others_said_of_the_answers() -> None:
    looks = [look(Showing.SHOWN, right=True), look(Showing.SHOWN, right=False), look(Showing.HIDDEN, right=True)]
    looks += [look(Showing.DRAWN, corrected=True), look(Showing.SHOWN)]
    found = value_of(looks).checked
    assert (found.shown.hits, found.shown.of, found.blind.hits, found.blind.of) == (1, 2, 1, 1)
    assert (found.corrected_shown.hits, found.corrected_blind.hits, found.corrected_blind.of) == (0, 1, 2)


def test_a_warning_names_what_to_look_at_again_the_least_sure_first() -> None:
    before = [replace(x, task=x.task + 1000) for x in stream(looks_like_one, 200)]
    looks = [*before, *stream(never_looks, 150, first=200)]
    looks += [replace(x, who=8, task=x.task + 5000) for x in stream(looks_like_one, 300, seed=1)]
    (warning,) = warnings_of(looks)
    assert warning == value_of(looks).warnings[0]
    assert warning.who == 7
    assert warning.accepted == len(warning.tasks)
    assert 100 < len(warning.tasks) < 180
    assert sum(task > 1000 for task in warning.tasks) < 40  # of the time before they stopped to look
    sure = {x.task: x.probability for x in looks if x.who == 7}
    assert [sure[t] for t in warning.tasks] == sorted(sure[t] for t in warning.tasks)  # type: ignore[type-var]
    assert 0 < warning.wrong < warning.accepted


def test_a_warning_in_words_gives_figures_and_advice() -> None:
    looks = [replace(x, seconds=0.8 if x.accepted else 5.0) for x in stream(never_looks, 100)]
    (warning,) = warnings_of(looks)
    assert headline(warning, "anna@x.org").startswith(
        f"anna@x.org took {warning.accepted} of {warning.accepted} pre-labels, but without one disagreed with "
    )
    how_sure, times = reasons(warning)
    assert "since 2026-03-01 08:00 UTC" in how_sure
    assert "less likely than 1 in " in how_sure
    assert "0.8 s" in times
    assert f"the {warning.accepted} accepted labels looked at again" in advice(warning)
    assert "queue.blind" in advice(warning)


def test_a_quick_hand_alone_is_no_reason_and_a_slow_one_is_not_mentioned() -> None:
    quick = [replace(x, seconds=0.3 if x.accepted else 5.0) for x in stream(looks_like_one, 300)]
    assert warnings_of(quick) == ()
    slow = [replace(x, seconds=5.0) for x in stream(never_looks, 100)]
    assert len(reasons(warnings_of(slow)[0])) == 1


def test_answers_without_an_account_accuse_nobody() -> None:
    looks = [replace(x, who=None) for x in stream(never_looks, 200)]
    found = value_of(looks)
    assert (found.people, found.warnings, found.looks) == ((), (), 200)


def test_the_report_is_json_and_warnings_come_back_from_it() -> None:
    looks = stream(never_looks, 100)
    data = json.loads(json.dumps(value_of(looks).to_json()))
    assert data["people"][0]["evidence"]["noticed"] <= 100
    (warning,) = warnings_of(looks)
    told = json.loads(json.dumps(asdict(warning)))
    assert unread_from({**told, "mood": "of a newer release"}) == warning
