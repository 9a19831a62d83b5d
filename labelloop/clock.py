"""Time as text, and names that sort by time."""

from __future__ import annotations

import secrets
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


def stamp() -> str:
    """A name that is unique and sorts by the time it was made."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"
