"""Copies of images that lie outside of S3: one project's part of the state bucket. The watcher writes, others read."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote

from labelloop.clock import now, stamp
from labelloop.errors import ImageUnreadableError, NotFoundError
from labelloop.images.reader import Reader, short
from labelloop.objects.damage import UNREADABLE, Damage
from labelloop.objects.formats import Kind, as_object, reading, typed, upgrade
from labelloop.objects.shards import Shards
from labelloop.objects.storage import ObjectStore
from labelloop.records.json import canonical, digest, to_dict

PREFIX = "mirror/"
INDEX = f"{PREFIX}index/"
_STUDIO = re.compile(
    r"/data/upload/\d+/[^/?#\\]+|/data/local-files/?\?d=[^#]+|/storage-data/uploaded/?\?filepath=upload/[^#]+"
    r"|/(?:tasks|projects)/\d+/resolve/?\?fileuri=[^#]+"
)


class CopySource(StrEnum):
    """Who has an image that is not in S3."""

    STUDIO = "studio"  # Label Studio: an upload, or a storage that it resolves
    WEB = "web"


class NotCopiedError(ImageUnreadableError):
    """The watcher has not copied this image yet."""


def source_of(uri: str) -> CopySource | None:
    """Where a copy must come from; None where none is made: S3 is read directly, anything else is refused."""
    if uri.lower().startswith(("http://", "https://")):
        return CopySource.WEB
    return CopySource.STUDIO if _STUDIO.fullmatch(uri) and _stays(uri.partition("?")[0]) else None


def _stays(path: str) -> bool:
    """False where a path could leave its place, however its dots and slashes are written."""
    while (plain := unquote(path)) != path:
        path = plain
    return "\\" not in path and not {".", ".."}.intersection(path.split("/"))


@dataclass(frozen=True, slots=True)
class MirroredImage:
    """One image as it was fetched, or why it could not be."""

    uri: str
    at: str
    sha256: str = ""  # of the bytes; the copy's name
    size: int = 0
    etag: str | None = None  # as the source gave it
    modified: str | None = None
    problem: str | None = None


class Mirror:
    """Images by the hash of their bytes, beside append-only lists of what was copied from where; the newest counts."""

    def __init__(self, store: ObjectStore, damage: Damage | None = None, *, every_s: float = 0.0) -> None:
        self._store, self._every_s = store, every_s
        self.damage = damage or Damage()
        self._shards = Shards(store, INDEX, self.damage)
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self.copies: dict[str, MirroredImage] = {}  # by uri

    def update(self) -> None:
        """Read the lists that were added since the last call."""
        with self._lock:
            self._update()

    def find(self, uri: str) -> MirroredImage | None:
        """What is known of an image; where that is nothing good, the lists are looked at again (not too often)."""
        copy = self.copies.get(uri)
        if copy is not None and not copy.problem:
            return copy
        with self._lock:
            if time.monotonic() - self._looked >= self._every_s:
                self._update()
        return self.copies.get(uri)

    def read(self, uri: str) -> tuple[bytes, str]:
        """(bytes, hash) of a copy; ImageUnreadableError where there is none, StorageError."""
        copy = self.find(uri)
        if copy is None:
            raise NotCopiedError(f"{short(uri)} is not copied to S3 yet: sync does that, within seconds")
        if copy.problem:
            raise ImageUnreadableError(copy.problem)
        try:
            data = self._store.get(f"{PREFIX}{copy.sha256}")
        except NotFoundError as error:
            raise ImageUnreadableError(f"the copy of {short(uri)} is gone from the state bucket") from error
        if digest(data) != copy.sha256:
            raise ImageUnreadableError(f"the copy of {short(uri)} was changed after it was made")
        return data, copy.sha256

    def keep(self, uri: str, data: bytes, *, etag: str | None = None, modified: str | None = None) -> MirroredImage:
        """Store the bytes, under their hash: what is there already is not written again. `record` makes it count."""
        name = digest(data)
        if not self._store.exists(f"{PREFIX}{name}"):
            self._store.put(f"{PREFIX}{name}", data)
        return MirroredImage(uri, now(), name, len(data), etag, modified)

    def record(self, copies: Iterable[MirroredImage]) -> None:
        """Add to the lists."""
        lines = list(copies)
        self._store.put(f"{INDEX}{stamp()}.jsonl", b"\n".join(canonical(to_dict(c)) for c in lines))
        self.copies.update({c.uri: c for c in lines})

    def _update(self) -> None:
        for key, data in self._shards.arrivals():
            try:
                copies = copies_from(data, key)
            except UNREADABLE as error:  # the watcher copies these images again
                self._shards.refuse(key, error)
                continue
            for copy in copies:
                before = self.copies.get(copy.uri)
                if before is None or before.at <= copy.at:
                    self.copies[copy.uri] = copy
        self._looked = time.monotonic()


def copies_from(data: bytes, key: str) -> list[MirroredImage]:
    """Whole or not at all; CorruptObjectError, FormatError."""
    with reading(key):
        lines = [typed(MirroredImage, upgrade(Kind.MIRROR, as_object(json.loads(line)))) for line in data.splitlines()]
        if not lines:
            raise ValueError("it is empty")
        return lines


class MirroredReader:
    """Reads S3 directly and everything else from its copy."""

    def __init__(self, direct: Reader, mirror: Mirror) -> None:
        self._direct, self._mirror = direct, mirror

    def read(self, uri: str) -> tuple[bytes, str]:
        """See `labelloop.images.reader.Reader`."""
        return self._direct.read(uri) if source_of(uri) is None else self._mirror.read(uri)
