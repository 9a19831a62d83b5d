"""`deleted.json`, its one owner: images whose tasks people removed in Label Studio. Kept twice: nothing derives it."""

from __future__ import annotations

import json
from collections.abc import Collection

from labelloop.errors import NotFoundError
from labelloop.objects.copies import get_twice, put_twice
from labelloop.objects.damage import Damage
from labelloop.objects.formats import reading
from labelloop.objects.storage import ObjectStore
from labelloop.records.json import canonical

KEY = "deleted.json"


def read_deleted(store: ObjectStore, damage: Damage) -> set[str]:
    """By the copy where the object is damaged; CorruptObjectError where that is damaged, too."""
    try:
        return get_twice(store, KEY, deleted_from, damage)
    except NotFoundError:
        return set()


def keep_deleted(store: ObjectStore, uris: Collection[str]) -> None:
    """Write object and copy."""
    put_twice(store, KEY, canonical(sorted(uris)))


def deleted_from(raw: bytes) -> set[str]:
    """CorruptObjectError."""
    with reading(KEY):
        uris = json.loads(raw)
        if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
            raise ValueError("it must be a list of addresses")
        return set(uris)
