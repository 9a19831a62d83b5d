"""The projects of a deployment: which Label Studio project, which images, which config."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from labelloop.config.project import ProjectConfig, parse_config
from labelloop.errors import CorruptObjectError, FormatError, NotFoundError, SettingsError
from labelloop.labels.results import LabelSchema, parse_label_config
from labelloop.objects.copies import copy_key, get_copy, put_copy
from labelloop.objects.damage import UNREADABLE, Damage
from labelloop.objects.formats import Kind, as_object, read, reading, typed, write
from labelloop.objects.storage import ObjectStore, Within

MAX_REFERENCE = 40  # characters
COPY = "record.json"  # of the record, among the project's own objects
LEFT_OUT = (*UNREADABLE, FormatError, SettingsError)  # what is wrong with one record
INDEX = "index/"  # beside the projects' own objects, so that finding all projects lists nothing else


@dataclass(frozen=True, slots=True)
class ProjectRecord:
    """One wired project. A bare id is not enough: ids come back when a database is created again."""

    server: str
    id: int
    created: int  # unix seconds, as Label Studio sends it to the backend
    title: str
    config: ProjectConfig
    label_config: str  # XML
    image_uri: str  # where new images appear, e.g. s3://images/digits/
    backend_id: int | None = None
    storage_id: int | None = None
    made: bool = False  # by labelloop, not adopted: it may take empty answers back
    network: str = ""  # why its images are seen by the network of the config, in words
    by_bytes: bool = False  # .jpe, .jfif and, by their first bytes, names without an ending are images; of old: not

    @property
    def key(self) -> str:
        """Names the project in object storage and in the queue."""
        return f"{self.server}-{self.id}-{self.created}"

    @property
    def reference(self) -> str:
        """How Label Studio names the project to an ML backend."""
        return f"{self.id}.{self.created}"

    @property
    def schema(self) -> LabelSchema:
        """The one control that is learned."""
        return replace(parse_label_config(self.label_config), fields=self.config.buckets.fields)


@dataclass(frozen=True, slots=True)
class DamagedRecord:
    """A project whose record cannot be read: ``key`` names the object."""

    project: str
    key: str
    reason: str
    remedy: str


def project_store(store: ObjectStore, key: str) -> Within:
    """The part of the state bucket that belongs to one project."""
    return Within(store, f"projects/{key}")


class ProjectStore:
    """All projects of a deployment, kept in object storage so that every service finds them."""

    def __init__(self, store: ObjectStore, server: str) -> None:
        self._store = store
        self._server = server
        self._lock = threading.Lock()
        self._parsed: dict[str, tuple[bytes, ProjectRecord]] = {}
        self.damage = Damage()
        self._lost: set[str] = set()  # projects whose copy cannot be read either

    def put(self, record: ProjectRecord) -> None:
        """Add or replace. The copy first: where the record is, its copy is."""
        raw = dump_record(record)
        put_copy(project_store(self._store, record.key), COPY, raw)
        self._store.put(_index_key(record.key), raw)

    def get(self, key: str) -> ProjectRecord:
        """One project, by its copy where the record is damaged; NotFoundError where there is none, one of LEFT_OUT."""
        try:
            record = self._read(key, self._store.get(_index_key(key)))
        except LEFT_OUT as error:
            self.damage.note(_index_key(key), error)
            return self._from_copy(key, error)
        self.damage.resolved(_index_key(key))
        self._lost.discard(key)
        return record

    def _from_copy(self, key: str, error: Exception) -> ProjectRecord:
        try:
            record = load_record(get_copy(project_store(self._store, key), COPY), key)
        except (*LEFT_OUT, NotFoundError):
            self._lost.add(key)
            raise error from None
        self._lost.discard(key)
        return record

    def _read(self, key: str, raw: bytes) -> ProjectRecord:
        with self._lock:
            parsed = self._parsed.get(key)
            if parsed is None or parsed[0] != raw:
                self._parsed[key] = parsed = (raw, load_record(raw, key))
        return parsed[1]

    def heal(self, record: ProjectRecord) -> None:
        """Write what is damaged or missing of a record and its copy. For one process alone: the watcher."""
        key, own = record.key, project_store(self._store, record.key)
        before = self._bytes(key)
        try:
            raw = self._store.get(_index_key(key))
            good = dump_record(self._read(key, raw))
        except CorruptObjectError:
            if self._bytes(key) == before:  # nobody has written it meanwhile
                self.put(record)
            return
        except LEFT_OUT:  # of a newer release, or changed by hand: a person's
            return
        try:
            intact = get_copy(own, COPY) in {raw, good}
        except (*UNREADABLE, NotFoundError):
            intact = False
        if not intact:
            put_copy(own, COPY, raw)

    def _bytes(self, key: str) -> bytes | None:
        """None where they are too many for a record."""
        try:
            return self._store.get(_index_key(key))
        except CorruptObjectError:
            return None

    def find(self, reference: str) -> ProjectRecord | None:
        """The project that Label Studio calls `<id>.<created_ts>`, or None."""
        number, _, created = reference.partition(".")
        if not (reference.isascii() and len(reference) <= MAX_REFERENCE and number.isdigit() and created.isdigit()):
            return None
        try:
            return self.get(f"{self._server}-{number}-{created}")
        except NotFoundError:
            return None

    def all(self) -> list[ProjectRecord]:
        """Every project of this Label Studio server, by key. One that cannot be read is left out: see `damaged`."""
        records = []
        keys = [info.key for info in self._store.list(f"{INDEX}{self._server}-")]
        for key in keys:
            with suppress(NotFoundError, *LEFT_OUT):
                records.append(self.get(key.removeprefix(INDEX).removesuffix(".json")))
        for key in set(self.damage.keys()) - set(keys):
            self.damage.resolved(key)
        return records

    def damaged(self) -> list[DamagedRecord]:
        """Records that `all` could not read, or only by their copy."""
        return [DamagedRecord(d.key.removeprefix(INDEX).removesuffix(".json"), d.key, d.reason, d.remedy)
                for d in self.damage.all()]  # fmt: skip

    def unread(self) -> list[DamagedRecord]:
        """Those of them that `all` leaves out."""
        return [d for d in self.damaged() if d.project in self._lost]

    def remove(self, key: str) -> None:
        """Forget the wiring; what was learned stays."""
        self._store.delete(_index_key(key))
        project_store(self._store, key).delete(copy_key(COPY))
        self.damage.resolved(_index_key(key))


def _index_key(key: str) -> str:
    return f"{INDEX}{key}.json"


def dump_record(record: ProjectRecord) -> bytes:
    """As JSON. A record holds no secret: those are in the environment."""
    data: dict[str, Any] = {**asdict(record), "config": record.config.model_dump(mode="json")}
    return write(Kind.PROJECT, data)


def load_record(raw: bytes, key: str | None, what: str = "") -> ProjectRecord:
    """The inverse of `dump_record`. ``key`` of the project, where it is known; ``what`` it is, for errors.

    CorruptObjectError, FormatError, SettingsError.
    """
    what = what or f"project {key}"
    name = _index_key(key) if key else what
    data = read(Kind.PROJECT, raw, name)
    source = f"the stored config of {what} (if a newer labelloop has written it: upgrade this process)"
    with reading(name):
        if "config" not in data:
            raise ValueError("'config' is missing")
        config = parse_config(as_object(data["config"]), source)
        record = typed(ProjectRecord, {**data, "config": config})
        if key and record.key != key:
            raise ValueError(f"it is the record of {record.key}")
        if not re.fullmatch(r"[A-Za-z0-9]+-[0-9]+-[0-9]+", record.key):  # part of the names of objects and jobs
            raise ValueError(f"no project can be called {record.key!r}")
    return record
