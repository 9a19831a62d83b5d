"""Times and decisions in words, the same wherever they are read."""

from __future__ import annotations

from labelloop.clock import age_s


def ago(moment: str) -> str:
    """How long ago, in the largest unit that says something."""
    seconds = max(age_s(moment), 0)
    for limit, unit, word in ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {word} ago"
    return f"{seconds / 86400:.0f} days ago"


def span(seconds: float) -> str:
    """A length of time."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def made_live(action: str, by: str, why: str) -> str:
    """Who made a version live; the gate's own reasons are shown elsewhere, as evidence."""
    if action == "deploy":
        return f"promoted automatically after {by}"
    done = {"promote": "promoted", "rollback": "rolled back"}.get(action, action)
    return f"{done} by {by}" + (f": {why}" if why and why != "by hand" else "")
