"""Objects that cannot be read: noted where they are met, logged once, shown at any time by `status` and `doctor`.

What is damaged costs itself alone. `labelloop.remedies` says what is done without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from labelloop.errors import CorruptObjectError, FormatError, NotFoundError
from labelloop.objects.storage import ObjectInfo
from labelloop.remedies import UPGRADE, remedy_of

T = TypeVar("T")
UNREADABLE = (CorruptObjectError,)  # one object; what a newer release wrote is not damaged, and nobody goes on past it
AGAIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Damaged:
    """One object that cannot be read."""

    key: str
    reason: str
    etag: str = ""  # of the bytes that were looked at, where they were listed
    newer: bool = False  # a newer release wrote it
    at: float = field(default_factory=time.monotonic, compare=False)

    @property
    def remedy(self) -> str:
        """What is done without it, and what a person can do."""
        return UPGRADE if self.newer else remedy_of(self.key)


class Damage:
    """One project's, as one process has met them. Safe to share between threads."""

    def __init__(self) -> None:
        self._damaged: dict[str, Damaged] = {}

    def note(self, key: str, error: Exception, etag: str = "") -> None:
        """Remember it; logged the first time."""
        reason = error.reason if isinstance(error, CorruptObjectError) else str(error)
        if key not in self._damaged:
            log = structlog.get_logger()
            log.warning("object damaged", action="damage", key=key, reason=reason, remedy=remedy_of(key))
        self._damaged[key] = Damaged(key, reason, etag, isinstance(error, FormatError))

    def resolved(self, key: str) -> None:
        """It can be read, or is gone."""
        self._damaged.pop(key, None)

    def is_noted(self, info: ObjectInfo) -> bool:
        """True where these very bytes were looked at."""
        entry = self._damaged.get(info.key)
        return entry is not None and entry.etag == info.etag

    def looked_at(self, key: str) -> bool:
        """True where it was found damaged a moment ago: it is not read again at every poll."""
        entry = self._damaged.get(key)
        return entry is not None and time.monotonic() - entry.at < AGAIN_S

    def keys(self, prefix: str = "") -> list[str]:
        """Of what is damaged."""
        return sorted(key for key in list(self._damaged) if key.startswith(prefix))

    def all(self) -> list[Damaged]:
        """By key."""
        return [self._damaged[key] for key in self.keys() if key in self._damaged]

    def recheck(self, prefix: str, read: Callable[[str], object]) -> None:
        """Look again at what was damaged there, a moment later: somebody may have brought it back, or set it aside."""
        for key in self.keys(prefix):
            if not self.looked_at(key):
                try:
                    read(key)
                    self.resolved(key)
                except NotFoundError:
                    self.resolved(key)
                except UNREADABLE as error:
                    self.note(key, error, self._damaged[key].etag)

    def intact(self, infos: Iterable[ObjectInfo], read: Callable[[str], T], prefix: str | None = None) -> dict[str, T]:
        """Key -> what ``read`` makes of each listed object; damaged ones are noted, and read again when they change.

        ``prefix``: all that is damaged under it is among those listed, or is gone.
        """
        values = {}
        listed = list(infos)
        for key in set(self.keys(prefix) if prefix else ()) - {info.key for info in listed}:
            self.resolved(key)
        for info in listed:
            if self.is_noted(info):
                continue
            try:
                values[info.key] = read(info.key)
                self.resolved(info.key)
            except UNREADABLE as error:
                self.note(info.key, error, info.etag)
        return values
