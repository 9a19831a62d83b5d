"""What a person asks for from the command line, kept in object storage until it is done."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from labelloop.clock import now, stamp
from labelloop.records import canonical
from labelloop.storage import ObjectStore

PREFIX = "requests/"


@dataclass(frozen=True, slots=True)
class Request:
    """One wish, e.g. `retrain` now."""

    id: str
    what: str
    by: str
    at: str


class RequestStore:
    """One project's open wishes, oldest first."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def add(self, what: str, *, by: str) -> Request:
        """Ask."""
        request = Request(stamp(), what, by, now())
        self._store.put(f"{PREFIX}{request.id}.json", canonical(asdict(request)))
        return request

    def open(self) -> list[Request]:
        """What is not done yet."""
        return [Request(**json.loads(self._store.get(info.key))) for info in self._store.list(PREFIX)]

    def done(self, request: Request) -> None:
        """Strike it off."""
        self._store.delete(f"{PREFIX}{request.id}.json")
