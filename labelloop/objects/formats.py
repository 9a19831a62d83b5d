"""Kept JSON in, the data that this release knows out: every kind has a format number, and older ones are upgraded.

The number grows when an older process would misread the new data (docs/adr/0011-format-versions.md). Data without a
number is of format 1.
"""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from labelloop import __version__
from labelloop.errors import CorruptObjectError, FormatError
from labelloop.records.json import canonical

T = TypeVar("T")
Data = dict[str, Any]
Step = Callable[[Data], Data]
FIELD = "format"
# whatever reading arbitrary bytes can raise; OSError and EOFError are gzip's
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, OSError, EOFError,
              zlib.error)  # fmt: skip


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
    BATCH = "batch"
    TASK_GROUPS = "task_groups"  # one shard
    API_KEY = "api_key"
    AUTO_LABELS = "auto_labels"  # the manifest; it speaks for the lines beside it, too


CURRENT: dict[Kind, int] = dict.fromkeys(Kind, 1)
MIGRATIONS: dict[tuple[Kind, int], Step] = {}  # (kind, n) -> what makes format n + 1 of format n; each is kept for ever


@contextmanager
def reading(key: str) -> Iterator[None]:
    """Whatever is wrong with an object's bytes becomes one error that names it; `FormatError` names it, too."""
    try:
        yield
    except CorruptObjectError:
        raise
    except FormatError as error:
        raise FormatError(f"{key}: {error}") from error
    except UNREADABLE as error:
        raise CorruptObjectError(key, _in_words(error)) from error


def read(kind: Kind, raw: bytes | str, key: str = "") -> Data:
    """The object in today's format, without its number. ``key``: its name in the store.

    CorruptObjectError where it is not what was written; FormatError where a newer release wrote it.
    """
    with reading(key or f"a {kind}"):
        return upgrade(kind, as_object(json.loads(raw)))


def load(kind: Kind, raw: bytes | str, record: type[T], key: str = "") -> T:
    """The same as a record, each field of its type. Fields that this release does not know are left out."""
    data = read(kind, raw, key)
    with reading(key or f"a {kind}"):
        return typed(record, data)


def typed(record: type[T], data: Any) -> T:
    """A record of plain JSON values; ValueError names the fields that are missing or of another type."""
    value: T = _adapter(record).validate_python(data)  # type: ignore[arg-type]
    return value


@functools.cache
def _adapter(record: Any) -> TypeAdapter[Any]:
    return TypeAdapter(record)


def as_object(data: Any) -> Data:
    """ValueError where it is no JSON object."""
    if not isinstance(data, dict):
        raise ValueError(f"it must be a JSON object, not {type(data).__name__}")  # noqa: TRY004 -- of the data
    return data


def _in_words(error: Exception) -> str:
    """Short: pydantic's own text has an address in each line."""
    if isinstance(error, ValidationError):
        parts = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3]]
        return "; ".join(parts)
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return f"it is no JSON ({str(error)[:80]})"
    return str(error)[:200] if type(error) is ValueError else f"{type(error).__name__}: {str(error)[:200]}"


def upgrade(kind: Kind, data: Data) -> Data:
    """Step by step to today's format."""
    if FIELD not in data and CURRENT[kind] == 1:  # lines come by the million
        return data
    upgraded = dict(data)
    number = upgraded.pop(FIELD, 1)
    if type(number) is not int or number < 1:
        raise ValueError(f"{number!r} is no format of a {kind}")
    if number > CURRENT[kind]:
        raise FormatError(
            f"this {kind} was written by a newer labelloop (format {number}, this one, {__version__}, reads up to "
            f"{CURRENT[kind]}): upgrade this process"
        )
    for step in range(number, CURRENT[kind]):
        upgraded = MIGRATIONS[kind, step](upgraded)
    return upgraded


def stamped(kind: Kind, data: Mapping[str, Any]) -> Data:
    """The data with its number, to be written."""
    return {FIELD: CURRENT[kind], **data}


def write(kind: Kind, data: Mapping[str, Any]) -> bytes:
    """The bytes that `read` takes."""
    return canonical(stamped(kind, data))
