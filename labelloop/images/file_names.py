"""Uploaded images in, the names of the files that they came from out: an export is joined with the files by those."""

from __future__ import annotations

import json
from collections.abc import Mapping

from labelloop.errors import NotFoundError
from labelloop.objects.copies import get_twice, put_twice
from labelloop.objects.damage import Damage
from labelloop.objects.formats import as_object, reading
from labelloop.objects.storage import ObjectStore
from labelloop.records.json import canonical

NAMES = "names.json"  # of one project: URI -> path relative to the folder that was uploaded


def file_names(store: ObjectStore, damage: Damage | None = None) -> dict[str, str]:
    """As they were kept, none where no upload has needed any; CorruptObjectError where copy and object are damaged."""
    try:
        return get_twice(store, NAMES, names_from, damage or Damage())
    except NotFoundError:
        return {}


def keep_names(store: ObjectStore, names: Mapping[str, str]) -> None:
    """Add to those that are known."""
    kept = file_names(store)
    if names.items() - kept.items():
        put_twice(store, NAMES, canonical({**kept, **names}))


def file_of(uri: str, image_uri: str, names: Mapping[str, str]) -> str:
    """The file that an image came from, relative to its folder; for other images the key below the project's prefix."""
    return names.get(uri) or uri.removeprefix(image_uri)


def names_from(raw: bytes) -> dict[str, str]:
    """CorruptObjectError where it is not what was written."""
    with reading(NAMES):
        names = as_object(json.loads(raw))
        if not all(isinstance(name, str) for name in names.values()):
            raise ValueError("it must hold texts")
        return names
