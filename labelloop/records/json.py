"""Frozen records to JSON and back: one byte form that is hashed, fields of later releases left aside."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any


def to_dict(record: Any) -> dict[str, Any]:
    """Dataclass to plain JSON types, leaving out what is None."""
    return {k: v for k, v in asdict(record).items() if v is not None}


def canonical(value: Any) -> bytes:
    """The one byte form that is hashed: sorted keys, no white space, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def fields_of(record: type, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those fields that ``record`` has: a newer release may have written more of them."""
    names = _names(record)
    return data if names.issuperset(data) else {name: value for name, value in data.items() if name in names}


@functools.cache
def _names(record: type) -> frozenset[str]:
    return frozenset(f.name for f in fields(record))
