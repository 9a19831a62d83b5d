"""What tasks say of their images' groups, as the watcher has read it: workers never ask Label Studio.

Sixteen objects by hash of the address; only hashes of the groups' names are kept. The watcher can write them again at
any time. An image that stands in none of them has no task yet, or the watcher has not come to it: it is to wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labelloop.config.task_fields import Fields
from labelloop.objects.damage import Damage
from labelloop.objects.formats import Kind, read, reading, write
from labelloop.objects.storage import ObjectStore
from labelloop.records.given import Said
from labelloop.records.json import digest

PREFIX = "task-groups/"
SHARDS = tuple("0123456789abcdef")
TEST = "+"  # after the hash: of the test set


def shard_of(uri: str) -> str:
    """Where an image stands."""
    return digest(uri.encode("utf-8", "replace"))[0]


def key_of(shard: str) -> str:
    """The object of a shard."""
    return f"{PREFIX}{shard}.json"


def dump(fields: Fields, images: Mapping[str, Said]) -> bytes:
    """The bytes of one shard."""
    texts = {uri: one.group + (TEST if one.test else "") for uri, one in images.items()}
    return write(Kind.TASK_GROUPS, {"fields": fields.key, "images": texts})


def shard_from(raw: bytes, key: str) -> tuple[str, dict[str, Said]]:
    """(which fields, image -> what its tasks say); CorruptObjectError, FormatError."""
    data = read(Kind.TASK_GROUPS, raw, key)
    with reading(key):
        fields, images = data["fields"], data["images"]
        if not isinstance(fields, str) or not isinstance(images, dict):
            raise ValueError("it names no fields or no images")  # noqa: TRY004 -- of the data
        return fields, {uri: _said(text) for uri, text in images.items()}


def _said(text: Any) -> Said:
    group = text.removesuffix(TEST)
    if group and not (len(group) == 64 and group.isalnum() and group.isascii()):
        raise ValueError(f"{group[:80]!r} is no hash")
    return Said(group, text.endswith(TEST))


class TaskGroups:
    """Read by workers; what has not changed is not read again."""

    def __init__(self, store: ObjectStore, damage: Damage | None = None) -> None:
        self._store, self._damage = store, damage or Damage()
        self._etags: dict[str, str] = {}
        self._shards: dict[str, tuple[str, dict[str, Said]]] = {}

    def update(self) -> None:
        """Take what the watcher has written since. Of a damaged shard nothing is known until it is written again."""
        listed = {info.key: info for info in self._store.list(PREFIX)}
        for key in self._shards.keys() - listed.keys():
            del self._shards[key], self._etags[key]
        changed = [info for key, info in listed.items() if self._etags.get(key) != info.etag]
        for info in changed:
            self._shards.pop(info.key, None)
            self._etags.pop(info.key, None)
        shards = self._damage.intact(changed, lambda key: shard_from(self._store.get(key), key))
        for key, shard in shards.items():
            self._shards[key], self._etags[key] = shard, listed[key].etag

    def of(self, uri: str, fields: Fields) -> Said | None:
        """None: nobody has read a task of this image under these fields yet."""
        kept, images = self._shards.get(key_of(shard_of(uri)), ("", {}))
        return images.get(uri) if kept == fields.key else None
