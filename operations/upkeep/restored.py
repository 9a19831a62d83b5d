"""What a restore found and did, and what its ways have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from labelloop.errors import StudioError
from labelloop.objects.storage import ObjectInfo
from labelloop.store.projects import ProjectRecord
from labelloop.store.registry import LOG
from labelloop.store.snapshots import LATEST
from labelloop.upkeep.object_kinds import ObjectKind, StoredObject, classify
from operations.deployment import Deployment
from operations.upkeep.archive import ArchiveReader
from operations.upkeep.backup import STATE

ORDER = (
    ObjectKind.WEIGHTS, ObjectKind.HEAD, ObjectKind.SHARD, ObjectKind.ROWS, ObjectKind.BACKBONE, ObjectKind.SNAPSHOT,
    ObjectKind.INDEX, ObjectKind.VERSION, ObjectKind.SCORES, ObjectKind.REPORT, ObjectKind.RUN, ObjectKind.CHECKPOINT,
    ObjectKind.OTHER,
)  # fmt: skip


@dataclass
class Restored:
    """What was done."""

    project: str
    key: str
    anew: bool  # a new project in Label Studio
    put: int = 0  # objects
    intact: int = 0
    newer: int = 0  # left as they are
    tasks: int = 0
    annotations: int = 0
    images: int = 0
    live: str | None = None
    notes: list[str] = field(default_factory=list)  # what could not be kept, or is left to do


def is_there(deployment: Deployment, record: ProjectRecord) -> bool:
    """Whether Label Studio has this very project: numbers alone come back."""
    if record.server != deployment.settings.studio_server:
        return False
    try:
        return deployment.studio.project(record.id).created == record.created
    except StudioError as error:
        if error.status == 404:
            return False
        raise


def held_in(archive: ArchiveReader) -> list[StoredObject]:
    """The objects of a backup, content before what names it, the log and `latest` at the end."""
    moment = datetime.now(UTC)
    objects = classify(ObjectInfo(n.removeprefix(STATE), archive.size(n), "", moment) for n in archive.names(STATE))
    rows = {held.names for held in objects if held.what is ObjectKind.ROWS}
    whole = [
        held for held in objects if held.what is not ObjectKind.INDEX or held.names in rows
    ]  # rows may be left out
    return sorted(whole, key=lambda h: (h.info.key.startswith(LOG), h.info.key == LATEST, ORDER.index(h.what)))
