"""What a person asks for from the command line, kept in object storage until it is done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from labelloop.clock import now, stamp
from labelloop.objects.damage import Damage
from labelloop.objects.formats import Kind, load, reading, write
from labelloop.objects.storage import ObjectStore

PREFIX = "requests/"
RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Request:
    """One wish: `retrain` now, or `retry` what is on hold after too many failures."""

    id: str
    what: str
    by: str
    at: str
    about: str = ""  # of a `retry`: refresh | retrain

    @property
    def kind(self) -> str:
        """The kind of run that answers it."""
        return self.about or self.what


class RequestStore:
    """One project's open wishes, oldest first."""

    def __init__(self, store: ObjectStore, damage: Damage | None = None) -> None:
        self._store = store
        self.damage = damage or Damage()

    def add(self, what: str, *, by: str, about: str = "") -> Request:
        """Ask."""
        request = Request(stamp(), what, by, now(), about)
        fields = {name: value for name, value in asdict(request).items() if value}
        self._store.put(f"{PREFIX}{request.id}.json", write(Kind.REQUEST, fields))
        return request

    def open(self) -> list[Request]:
        """What is not done yet and can be read."""
        requests = self.damage.intact(self._store.list(PREFIX), self._read, PREFIX)
        return [requests[key] for key in sorted(requests)]

    def _read(self, key: str) -> Request:
        return request_from(self._store.get(key), key)

    def done(self, request: Request) -> None:
        """Strike it off."""
        self._store.delete(f"{PREFIX}{request.id}.json")


def request_from(raw: bytes, key: str) -> Request:
    """A wish; CorruptObjectError, FormatError."""
    request = load(Kind.REQUEST, raw, Request, key)
    with reading(key):
        if f"{PREFIX}{request.id}.json" != key:
            raise ValueError(f"it is the request {request.id}")
    return request


def retries(wishes: Iterable[Request], kind: str) -> list[str]:
    """The ids of people's open wishes that this kind of run be tried again."""
    return [w.id for w in wishes if (w.what, w.about) == (RETRY, kind)]
