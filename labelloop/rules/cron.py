"""A cron expression and two moments in, whether its time has come out. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from croniter import CroniterBadDateError, croniter


@dataclass(frozen=True, slots=True)
class CronTimes:
    """Of one expression. ``due``: one of its times has passed since the last run."""

    due: bool = False
    next: str | None = None  # UTC, to the minute


def cron_times(cron: str | None, since: datetime, moment: datetime | None = None) -> CronTimes:
    """Derived and not remembered: a time that passed while nothing was running counts when something runs again.

    ``since``: when the last one began.
    """
    if not cron:
        return CronTimes()
    moment = moment or datetime.now(UTC)
    last, following = _near(cron, moment, before=True), _near(cron, moment, before=False)
    return CronTimes(last is not None and last >= since, f"{following:%Y-%m-%d %H:%M} UTC" if following else None)


def _near(cron: str, moment: datetime, *, before: bool) -> datetime | None:
    """Its time next to a moment; None where there is none for years, as on a 31st of February."""
    times = croniter(cron, moment)
    try:
        time: datetime = times.get_prev(datetime) if before else times.get_next(datetime)
    except CroniterBadDateError:
        return None
    return time
