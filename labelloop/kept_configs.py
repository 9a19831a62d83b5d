"""Configs by their hash: what a version was made with can be read for as long as the version is there."""

from __future__ import annotations

import json
from typing import Any

from labelloop.config import ProjectConfig
from labelloop.errors import NotFoundError
from labelloop.records import canonical
from labelloop.storage import ObjectStore

PREFIX = "configs/"


def keep_config(store: ObjectStore, config: ProjectConfig) -> None:
    """Write it down once; a store looks after equal bytes by itself."""
    key = f"{PREFIX}{config.hash}.json"
    if not store.exists(key):
        store.put(key, canonical(config.model_dump(mode="json")))


def kept_config(store: ObjectStore, name: str) -> dict[str, Any] | None:
    """None where an older release made it and kept nothing."""
    try:
        found: dict[str, Any] = json.loads(store.get(f"{PREFIX}{name}.json"))
        return found
    except NotFoundError:
        return None
