"""Time as text, and names that sort by time."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from datetime import UTC, datetime

LABEL_STUDIO_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"  # the only one its filters accept


def now() -> str:
    """UTC now, in Label Studio's format."""
    return datetime.now(UTC).strftime(LABEL_STUDIO_FORMAT)


def parse(text: str) -> datetime:
    """The inverse of `now`; also reads offsets."""
    return datetime.fromisoformat(text)


def age_s(text: str) -> float:
    """Seconds since a time written by `now`."""
    return (datetime.now(UTC) - parse(text)).total_seconds()


class LocalAges:
    """How long things have been as they are, by this process's own clock: those of other machines may be off."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def ages_s(self, names: Iterable[str]) -> dict[str, float]:
        """Each name -> seconds since it was named first, in every call from then on."""
        moment = time.monotonic()
        self._since = {name: self._since.get(name, moment) for name in names}
        return {name: moment - since for name, since in self._since.items()}


def stamp() -> str:
    """A name that is unique and sorts by the time it was made."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"
