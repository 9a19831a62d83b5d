"""A cron expression and two moments in, whether its time has come out. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from croniter import croniter


@dataclass(frozen=True, slots=True)
class Times:
    """Of one expression. ``due``: one of its times has passed since the last run."""

    due: bool = False
    next: str | None = None  # UTC, to the minute


def cron_times(cron: str | None, since: datetime, moment: datetime | None = None) -> Times:
    """Derived and not remembered: a time that passed while nothing was running counts when something runs again.

    ``since``: when the last one began.
    """
    if not cron:
        return Times()
    moment = moment or datetime.now(UTC)
    last = croniter(cron, moment).get_prev(datetime)
    return Times(last >= since, f"{croniter(cron, moment).get_next(datetime):%Y-%m-%d %H:%M} UTC")
