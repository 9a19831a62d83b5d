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


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """CI may be stopped before the runner's summary: what failed is told at once, too."""
    if report.failed and UNTIL in os.environ:
        print(f"\n{report.nodeid} ({report.when}, {report.duration:.0f} s)\n{report.longreprtext[-6000:]}", flush=True)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Past the limit nothing more begins, and the summary is still written."""
    if time.time() > float(os.environ.get(UNTIL, "inf")):
        item.session.shouldstop = f"{UNTIL} has passed"


@pytest.fixture(autouse=True)
def logs_go_nowhere_of_another_test() -> Iterator[None]:
    """Commands set where logs go, and here that is a file of the one test."""
    yield
    structlog.reset_defaults()
