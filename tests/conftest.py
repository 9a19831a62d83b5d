"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def logs_go_nowhere_of_another_test() -> Iterator[None]:
    """Commands set where logs go, and here that is a file of the one test."""
    yield
    structlog.reset_defaults()
