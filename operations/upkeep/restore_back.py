"""A backup in, its own project whole again: missing and damaged objects are restored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum

from labelloop.errors import ConflictError, CorruptObjectError, NotFoundError
from labelloop.objects.copies import PREFIX as COPIES
from labelloop.objects.formats import Kind, read
from labelloop.objects.storage import ObjectStore
from labelloop.queue.channels import DEPLOY_CHANNEL, publish
from labelloop.store.pauses import KEY as PAUSED
from labelloop.store.projects import ProjectRecord
from labelloop.store.registry import LOG
from labelloop.store.snapshots import LATEST
from labelloop.upkeep.inspection import fault_of
from labelloop.upkeep.object_kinds import ObjectKind, StoredObject
from operations.deployment import Deployment
from operations.people import me
from operations.reporting import Report
from operations.upkeep.archive import ArchiveReader
from operations.upkeep.backup import LEFT_OUT, READERS, STATE, batches
from operations.upkeep.restored import Restored, held_in

CATALOGUE = "catalogue/"
REPLACED = "the running processes loaded other objects of the same names: restart backend, sync and workers"
_ONCE = {
    ObjectKind.HEAD,
    ObjectKind.SHARD,
    ObjectKind.WEIGHTS,
    ObjectKind.SNAPSHOT,
    ObjectKind.INDEX,
    ObjectKind.ROWS,
}  # any other bytes are damaged


class Fate(StrEnum):
    """What becomes of one object of a backup."""

    PUT = "put"  # it is missing or damaged
    INTACT = "intact"
    NEWER = "newer"  # what is there now came later, or may have changed since
    CONFLICT = "conflict"  # another history: numbers were given twice
    OMIT = "omit"  # of use only while the backup ran


def fate(held: StoredObject, ours: bytes | None, kept: bytes) -> Fate:
    """Decide by what is there now. Pure."""
    key = held.info.key
    if key.startswith(LEFT_OUT) or key == PAUSED:
        return Fate.OMIT
    if ours is None or ours == kept:
        return Fate.PUT if ours is None else Fate.INTACT
    if held.what in _ONCE or key.startswith((CATALOGUE, COPIES)) or _is_damaged(key, ours):
        return Fate.PUT
    if held.what is ObjectKind.VERSION or key.startswith(LOG):
        return Fate.CONFLICT
    older = key == LATEST and _sequence(ours) < _sequence(kept)
    return Fate.PUT if older else Fate.NEWER


def restore_in_place(
    deployment: Deployment, archive: ArchiveReader, record: ProjectRecord, *, force: bool, report: Report
) -> Restored:  # fmt: skip
    """Missing and damaged objects; ConflictError where versions or log went another way since, and not ``force``."""
    store, objects = deployment.within(record), held_in(archive)
    done = Restored(record.title, record.key, anew=False)
    fates = _fates(store, archive, objects, report)
    clashing = [held.info.key for held, decided in fates if decided is Fate.CONFLICT]
    if clashing and not force:
        raise ConflictError(
            f"{record.title} has diverged from the backup: {len(clashing)} objects, e.g. {clashing[0]}, were "
            f"created since under the same number. --force overwrites them; --title restores as a new project"
        )
    puts = [held for held, decided in fates if decided in {Fate.PUT, Fate.CONFLICT}]
    for i, held in enumerate(puts, 1):
        store.put(held.info.key, archive.get(STATE + held.info.key))
        report("restore objects", i, len(puts))
    done.put, done.intact = len(puts), sum(decided is Fate.INTACT for _, decided in fates)
    done.newer = sum(decided is Fate.NEWER for _, decided in fates)
    if not _is_wired(deployment, record):
        deployment.projects.put(record)
    _make_live(deployment, record, archive, done, clashed=bool(clashing))
    return done


def _make_live(
    deployment: Deployment, record: ProjectRecord, archive: ArchiveReader, done: Restored, *, clashed: bool
) -> None:  # fmt: skip
    """After a clash the backup's champion is promoted; else the newest log entry names the champion."""
    registry = deployment.registry(record)
    live, target = registry.live(), archive.facts.get("live")
    if clashed:
        done.notes.append(REPLACED)
        if target and live and live.version != target:
            why = f"restored from the backup of {archive.facts.get('at')}"
            live = registry.deploy(target, expected=live.version, action="promote", by=me(), why=why)
    done.live = live.version if live else None
    publish(deployment.queue.redis, DEPLOY_CHANNEL, record.key)


def _fates(
    store: ObjectStore, archive: ArchiveReader, objects: Sequence[StoredObject], report: Report
) -> list[tuple[StoredObject, Fate]]:
    """Reads everything that is there: damage shows in the bytes alone."""
    fates: list[tuple[StoredObject, Fate]] = []
    with ThreadPoolExecutor(READERS) as pool:
        for batch in batches(objects):
            ours = pool.map(lambda held: _get(store, held.info.key), batch)
            fates += [(held, fate(held, data, archive.get(STATE + held.info.key)))
                      for held, data in zip(batch, ours, strict=True)]  # fmt: skip
            report("compare with object storage", len(fates), len(objects))
    return fates


def _is_wired(deployment: Deployment, record: ProjectRecord) -> bool:
    """False where its record is damaged, too."""
    try:
        return deployment.projects.find(record.reference) is not None
    except CorruptObjectError:
        return False


def _get(store: ObjectStore, key: str) -> bytes | None:
    try:
        return store.get(key)
    except CorruptObjectError:  # too large to be read
        return b""
    except NotFoundError:
        return None


def _is_damaged(key: str, data: bytes) -> bool:
    """False where it may be a record of another history: to replace that, a person says --force."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return True
    if isinstance(content, dict) and content:
        return False
    return fault_of(key, data) is not None


def _sequence(data: bytes) -> int:
    try:
        return int(read(Kind.LATEST, data)["sequence"])
    except (ValueError, KeyError, TypeError):
        return -1
