"""One thing that was looked at: how it is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is; `wrong`: the loop does not do what it should."""

    OK = "ok"
    WARN = "warn"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was found, and the remedy where one is needed."""

    what: str
    level: Level
    found: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """False where something must be fixed."""
        return self.level is not Level.WRONG

    @property
    def note(self) -> str:
        """In one line."""
        return f"{self.found}: {self.remedy}" if self.remedy else self.found


def fine(what: str, text: str) -> Finding:
    """As it should be."""
    return Finding(what, Level.OK, text)


def warn(what: str, text: str, remedy: str) -> Finding:
    """It works, but not as well as it could, or not for long."""
    return Finding(what, Level.WARN, text, remedy)


def wrong(what: str, text: str, remedy: str) -> Finding:
    """The loop does not do what it should."""
    return Finding(what, Level.WRONG, text, remedy)
