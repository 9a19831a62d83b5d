"""Kept JSON in, the data that this release knows out: every kind has a format number, and older ones are upgraded.

The number grows when an older process would misread the new data (docs/adr/0011-format-versions.md). Data without a
number is of format 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

from labelloop import __version__
from labelloop.errors import FormatError
from labelloop.records import canonical, fields_of

T = TypeVar("T")
Data = dict[str, Any]
Step = Callable[[Data], Data]
FIELD = "format"


class Kind(StrEnum):
    """Everything that is kept as JSON and outlives the process that wrote it."""

    PROJECT = "project"
    VERSION = "version"
    DEPLOYMENT = "deployment"
    BACKBONE = "backbone"
    RUN = "run"
    SNAPSHOT = "snapshot"  # the manifest; it speaks for the lines of its shards, too
    LATEST = "latest"
    CATALOGUE = "catalogue"  # one line of a shard
    MIRROR = "mirror"  # one line of its index
    FEATURES = "features"  # the index of a shard of rows
    SCORES = "scores"
    REQUEST = "request"
    PAUSE = "pause"
    STUDY = "study"
    TRIAL = "trial"
    LR_CURVE = "lr_curve"
    CURVE = "curve"
    TIDY = "tidy"
    BACKUP = "backup"
    AUTO_LABELS = "auto_labels"  # the manifest; it speaks for the lines beside it, too


CURRENT: dict[Kind, int] = dict.fromkeys(Kind, 1)
MIGRATIONS: dict[tuple[Kind, int], Step] = {}  # (kind, n) -> what makes format n + 1 of format n; each is kept for ever


def read(kind: Kind, raw: bytes | str) -> Data:
    """The object in today's format, without its number; FormatError where a newer release wrote it."""
    data = json.loads(raw)
    if not isinstance(data, dict):
        raise ValueError(f"a {kind} must be a JSON object, not {type(data).__name__}")  # noqa: TRY004 -- of the data
    return upgrade(kind, data)


def load(kind: Kind, raw: bytes | str, record: type[T]) -> T:
    """The same as a record whose fields are plain JSON. Fields that this release does not know are left out."""
    return record(**fields_of(record, read(kind, raw)))


def upgrade(kind: Kind, data: Data) -> Data:
    """Step by step to today's format."""
    if FIELD not in data and CURRENT[kind] == 1:  # lines come by the million
        return data
    found = dict(data)
    number = found.pop(FIELD, 1)
    if not isinstance(number, int) or number < 1:
        raise ValueError(f"{number!r} is no format of a {kind}")
    if number > CURRENT[kind]:
        raise FormatError(
            f"this {kind} was made by a newer labelloop (format {number}, this one, {__version__}, reads up to "
            f"{CURRENT[kind]}): upgrade this process"
        )
    for step in range(number, CURRENT[kind]):
        found = MIGRATIONS[kind, step](found)
    return found


def stamped(kind: Kind, data: Mapping[str, Any]) -> Data:
    """The data with its number, to be written."""
    return {FIELD: CURRENT[kind], **data}


def write(kind: Kind, data: Mapping[str, Any]) -> bytes:
    """The bytes that `read` takes."""
    return canonical(stamped(kind, data))
