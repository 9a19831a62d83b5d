"""What people say of an image's place: it is known better than any comparison can tell."""

from __future__ import annotations

from dataclasses import dataclass

from labelloop.records.images import Split


@dataclass(frozen=True, slots=True)
class Given:
    """Nothing, or a group (patient, video, lot), or a split (of their own test set)."""

    group: str | None = None
    bucket: Split | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """What the tasks of an image say in the fields that the config names."""

    group: str = ""  # its hash; empty: none
    test: bool = False  # of people's own test set


NOTHING_SAID = Said()
