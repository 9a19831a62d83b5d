"""What holds for every test."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
import structlog

UNTIL = "LABELLOOP_TESTS_UNTIL"  # seconds of the Unix epoch


def pytest_runtest_setup(item: pytest.Item) -> None:
    """CI has a limit, and its machine may be slow: a long test that would run into it is left out, and that is said."""
    mark = item.get_closest_marker("long")
    left = float(os.environ.get(UNTIL, "inf")) - time.time()
    if mark is not None and left < mark.kwargs["seconds"]:
        pytest.skip(f"{max(left, 0):.0f} s are left until {UNTIL}, and this may take {mark.kwargs['seconds']} s")


@pytest.fixture(autouse=True)
def logs_go_nowhere_of_another_test() -> Iterator[None]:
    """Commands set where logs go, and here that is a file of the one test."""
    yield
    structlog.reset_defaults()
