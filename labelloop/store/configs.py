"""Configs by their hash: what a version was made with can be read for as long as the version is there."""

from __future__ import annotations

import json
from typing import Any

from labelloop.config.project import ProjectConfig
from labelloop.errors import CorruptObjectError, NotFoundError
from labelloop.objects.formats import as_object, reading
from labelloop.objects.storage import ObjectStore
from labelloop.records.json import canonical

PREFIX = "configs/"


def keep_config(store: ObjectStore, config: ProjectConfig) -> None:
    """Write it down once, and again where it was damaged."""
    key, data = f"{PREFIX}{config.hash}.json", canonical(config.model_dump(mode="json"))
    try:
        kept = store.get(key)
    except (CorruptObjectError, NotFoundError):
        kept = b""
    if kept != data:
        store.put(key, data)


def kept_config(store: ObjectStore, name: str) -> dict[str, Any] | None:
    """None where an older release made it and kept nothing; CorruptObjectError."""
    key = f"{PREFIX}{name}.json"
    try:
        raw = store.get(key)
    except NotFoundError:
        return None
    return config_from(raw, key)


def config_from(raw: bytes, key: str) -> dict[str, Any]:
    """A config as it was kept; CorruptObjectError."""
    with reading(key):
        config = as_object(json.loads(raw))
        for part in ("head", "weights", "refresh", "retrain"):
            as_object(config[part])
        return config
