"""Which replaced versions' predictions may go from Label Studio, and when."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from sync.predictions.retired import KEEP_S, LEAST_S, MOST, PRESSED_S, QUIET_S, Retired
from tests.fakes.clock import Clock


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moment = Clock()
    monkeypatch.setattr(time, "monotonic", moment)
    return moment


def having(**counts: int) -> Retired:
    """With these predictions in Label Studio."""
    retired = Retired()
    retired.recount(counts)
    return retired


def goes(retired: Retired, shown: Sequence[str], *, idle_s: float = QUIET_S) -> str | None:
    """The last one shown is live."""
    return retired.due(shown[-1], shown, idle_s)


def test_nothing_goes_within_a_day_and_then_the_longest_replaced_first(moment: Clock) -> None:
    retired = having(v1=5, v2=5, v3=5)
    assert goes(retired, ["v1", "v2"]) is None
    moment.now = 60.0
    assert goes(retired, ["v1", "v2", "v3"]) is None
    moment.now = KEEP_S
    assert goes(retired, ["v1", "v2", "v3"]) == "v1"
    retired.deleted("v1")
    assert goes(retired, ["v1", "v2", "v3"]) is None
    moment.now += 60.0
    assert goes(retired, ["v1", "v2", "v3"]) == "v2"
    retired.deleted("v2")
    assert goes(retired, ["v1", "v2", "v3"]) is None


def test_nobody_waits_for_a_deletion_that_can_wait(moment: Clock) -> None:
    retired = having(v1=5, v2=5)
    assert goes(retired, ["v1", "v2"]) is None
    moment.now = 2 * KEEP_S
    assert goes(retired, ["v1", "v2"], idle_s=QUIET_S - 1) is None


def test_a_version_that_came_back_counts_from_its_last_day(moment: Clock) -> None:
    retired = having(v1=5, v2=5)
    assert goes(retired, ["v1", "v2"]) is None
    moment.now = KEEP_S - 1
    assert goes(retired, ["v1", "v2", "v1"]) is None
    moment.now = KEEP_S + 1
    assert goes(retired, ["v1", "v2", "v1", "v2"]) is None


def test_too_many_go_earlier_but_never_under_a_page_just_opened(moment: Clock) -> None:
    crowded = having(v1=MOST, v2=1, v3=5)
    shown = ["v1", "v2", "v3"]
    assert goes(crowded, shown) is None
    moment.now = LEAST_S - 1
    assert goes(crowded, shown) is None
    moment.now = LEAST_S
    assert goes(crowded, shown, idle_s=PRESSED_S - 1) is None
    assert goes(crowded, shown, idle_s=PRESSED_S) == "v1"
    crowded.deleted("v1")
    assert goes(crowded, shown) is None


def test_what_we_did_not_show_is_not_ours(moment: Clock) -> None:
    retired = having(theirs=MOST + 1, v1=1)
    assert goes(retired, ["v1"]) is None
    moment.now = 9 * KEEP_S
    assert goes(retired, ["v1"]) is None


def test_pushes_add_up() -> None:
    retired = Retired()
    retired.pushed("v1", 50)
    retired.pushed("v1", 150)
    assert retired.count("v1") == 200
