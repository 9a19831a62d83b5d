"""Small pictures to compare: those used last stay in memory, all others are read again. Nothing of them is stored."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping

from labelloop.decoding.square import Pixels
from labelloop.errors import LabelloopError
from labelloop.images.reader import Reader
from labelloop.likeness.windows import thumb_of
from labelloop.records.images import ImageFacts
from labelloop.rules.split import group_of

MOST = 1024  # of 48 KB


class Thumbs:
    """Of one project's images, as their recorded bytes show them."""

    def __init__(self, images: Reader, facts: Mapping[str, ImageFacts]) -> None:
        self._images, self._facts = images, facts
        self._kept: OrderedDict[tuple[str, str], Pixels] = OrderedDict()  # by uri and hash of the bytes
        self._lock = threading.Lock()

    def keep(self, uri: str, sha256: str, data: bytes) -> Pixels:
        """Of bytes at hand; ImageUnreadableError."""
        thumb = thumb_of(data)
        with self._lock:
            self._kept[uri, sha256] = thumb
            while len(self._kept) > MOST:
                self._kept.popitem(last=False)
        return thumb

    def of(self, uri: str) -> Pixels | None:
        """None where the image cannot be read now, or other bytes stand in its place."""
        facts = self._facts.get(uri)
        if facts is None or not facts.sha256:
            return None
        with self._lock:
            thumb = self._kept.pop((uri, facts.sha256), None)
            if thumb is not None:
                self._kept[uri, facts.sha256] = thumb  # the one used last goes last
                return thumb
        try:
            data, _ = self._images.read(uri)
            return self.keep(uri, facts.sha256, data) if group_of(data) == facts.sha256 else None
        except (LabelloopError, OSError):  # what cannot be seen is no relative of anything
            return None
