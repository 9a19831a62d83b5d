"""The projects of a deployment: which Label Studio project, which images, which config."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from typing import Any

import structlog

from labelloop.config import ProjectConfig, parse_config
from labelloop.errors import FormatError, NotFoundError, SettingsError
from labelloop.formats import Kind, read, write
from labelloop.labels import LabelSchema, parse_label_config
from labelloop.records import fields_of
from labelloop.storage import ObjectStore, Within

log = structlog.get_logger()
MAX_REFERENCE = 40  # characters
INDEX = "index/"  # beside the projects' own objects, so that finding all projects lists nothing else


@dataclass(frozen=True, slots=True)
class ProjectRecord:
    """One wired project. A bare id is not enough: ids come back when a database is made anew."""

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
        return parse_label_config(self.label_config)


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

    def put(self, record: ProjectRecord) -> None:
        """Add or replace."""
        self._store.put(_index_key(record.key), dump_record(record))

    def get(self, key: str) -> ProjectRecord:
        """One project; NotFoundError where there is none."""
        raw = self._store.get(_index_key(key))
        with self._lock:
            known = self._parsed.get(key)
            if known is None or known[0] != raw:
                self._parsed[key] = known = (raw, load_record(raw, f"project {key}"))
        return known[1]

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
        """Every project of this Label Studio server, by key. One that cannot be read is left out, and logged."""
        found = []
        for info in self._store.list(f"{INDEX}{self._server}-"):
            key = info.key.removeprefix(INDEX).removesuffix(".json")
            try:
                found.append(self.get(key))
            except (SettingsError, FormatError, NotFoundError, ValueError, TypeError) as error:
                log.warning("project left out", action="projects", project=key, reason=str(error))
        return found

    def remove(self, key: str) -> None:
        """Forget the wiring; what was learned stays."""
        self._store.delete(_index_key(key))


def _index_key(key: str) -> str:
    return f"{INDEX}{key}.json"


def dump_record(record: ProjectRecord) -> bytes:
    """As JSON. A record holds no secret: those are in the environment."""
    data: dict[str, Any] = {**asdict(record), "config": record.config.model_dump(mode="json")}
    return write(Kind.PROJECT, data)


def load_record(raw: bytes, what: str) -> ProjectRecord:
    """The inverse of `dump_record`; ``what`` it is, for errors."""
    data = fields_of(ProjectRecord, read(Kind.PROJECT, raw))
    source = f"the stored config of {what} (if a newer labelloop has written it: upgrade this process)"
    return ProjectRecord(**{**data, "config": parse_config(data["config"], source)})
