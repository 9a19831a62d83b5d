"""A server is asked in proportion to what it costs, and one slow answer keeps nobody away for long."""

from __future__ import annotations

import pytest

from sync.pace import Pace


def test_what_costs_little_comes_as_often_as_it_may() -> None:
    pace = Pace(5.0, 0.02)
    assert pace.rest_s(0.001) == pytest.approx(5.0)
    assert pace.rest_s(0.1) == pytest.approx(5.0)


def test_what_costs_much_takes_its_share_in_the_end() -> None:
    pace = Pace(5.0, 0.02)
    rests = [pace.rest_s(2.0) for _ in range(5)]
    assert rests == sorted(rests)
    assert rests[-1] == pytest.approx(2.0 / 0.02)


def test_one_slow_answer_is_soon_forgotten() -> None:
    """A fault run found it: eight seconds of errors, and a deleted task was not noticed for minutes."""
    pace = Pace(5.0, 0.02)
    pace.rest_s(0.05)
    assert pace.rest_s(8.0) < 16.0
    assert pace.rest_s(0.05) == pytest.approx(5.0)
