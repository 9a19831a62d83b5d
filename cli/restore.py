"""A backup in, the project as it was out: what is missing or damaged put back, or the whole of it made anew."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from cli.archive import ArchiveReader
from cli.backup import LEFT_OUT, PROJECT, READERS, STATE, batches
from cli.deployment import Deployment
from cli.setup import Report
from labelloop.errors import ConflictError, NotFoundError, StudioError
from labelloop.formats import Kind, read
from labelloop.holdings import Held, What, classify
from labelloop.pauses import KEY as PAUSED
from labelloop.projects import ProjectRecord, load_record
from labelloop.queue import DEPLOY_CHANNEL, publish
from labelloop.snapshot import LATEST
from labelloop.storage import ObjectInfo, ObjectStore

LOG = "deployments/"
CATALOGUE = "catalogue/"
REPLACED = "what is live was made with other objects of the same names: restart backend, sync and workers"
_ONCE = {What.HEAD, What.SHARD, What.WEIGHTS, What.SNAPSHOT, What.INDEX, What.ROWS}  # any other bytes are damaged
_ORDER = (What.WEIGHTS, What.HEAD, What.SHARD, What.ROWS, What.BACKBONE, What.SNAPSHOT, What.INDEX, What.VERSION,
          What.SCORES, What.RUN, What.OTHER)  # fmt: skip


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


class Fate(StrEnum):
    """What becomes of one object of a backup."""

    PUT = "put"  # it is missing or damaged
    INTACT = "intact"
    NEWER = "newer"  # what is there now came later, or may have changed since
    CONFLICT = "conflict"  # another history: numbers were given twice
    OMIT = "omit"  # of the moment of the backup alone


def restore(deployment: Deployment, path: Path, *, title: str | None, force: bool, report: Report) -> Restored:
    """Into the very project where Label Studio still has it and no other ``title`` is wanted; else as a new one."""
    from cli.restore_anew import make_anew

    archive = ArchiveReader(path)
    try:
        archive.verify(report)
        record = load_record(archive.get(PROJECT), f"the project in {path}")
        lost = not is_there(deployment, record)
        if title is None and not lost:
            return put_back(deployment, archive, record, force=force, report=report)
        made = make_anew(deployment, archive, record, title or record.title, report)
        if lost:  # nobody can look after it any more; its objects stay
            deployment.projects.remove(record.key)
        return made
    finally:
        archive.close()


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


def held_in(archive: ArchiveReader) -> list[Held]:
    """The objects of a backup, content before what names it, the log and `latest` at the end."""
    moment = datetime.now(UTC)
    objects = classify(ObjectInfo(n.removeprefix(STATE), archive.size(n), "", moment) for n in archive.names(STATE))
    rows = {held.names for held in objects if held.what is What.ROWS}
    whole = [held for held in objects if held.what is not What.INDEX or held.names in rows]  # rows may be left out
    return sorted(whole, key=lambda h: (h.info.key.startswith(LOG), h.info.key == LATEST, _ORDER.index(h.what)))


def fate(held: Held, ours: bytes | None, kept: bytes) -> Fate:
    """Decide by what is there now. Pure."""
    key = held.info.key
    if key.startswith(LEFT_OUT) or key == PAUSED:
        return Fate.OMIT
    if ours is None or ours == kept:
        return Fate.PUT if ours is None else Fate.INTACT
    if held.what in _ONCE or key.startswith(CATALOGUE) or not _is_json(ours):
        return Fate.PUT
    if held.what is What.VERSION or key.startswith(LOG):
        return Fate.CONFLICT
    older = key == LATEST and _sequence(ours) < _sequence(kept)
    return Fate.PUT if older else Fate.NEWER


def put_back(
    deployment: Deployment, archive: ArchiveReader, record: ProjectRecord, *, force: bool, report: Report
) -> Restored:  # fmt: skip
    """Missing and damaged objects; ConflictError where versions or log went another way since, and not ``force``."""
    store, objects = deployment.within(record), held_in(archive)
    done = Restored(record.title, record.key, anew=False)
    fates = _fates(store, archive, objects, report)
    clashing = [held.info.key for held, found in fates if found is Fate.CONFLICT]
    if clashing and not force:
        raise ConflictError(
            f"{record.title} went another way since the backup: {len(clashing)} objects, e.g. {clashing[0]}, were made "
            "anew under the same number. --force lets the backup's take their place; or restore it as a new project "
            "with --title"
        )
    wanted = [held for held, found in fates if found in {Fate.PUT, Fate.CONFLICT}]
    for i, held in enumerate(wanted, 1):
        store.put(held.info.key, archive.get(STATE + held.info.key))
        report("put back", i, len(wanted))
    done.put, done.intact = len(wanted), sum(found is Fate.INTACT for _, found in fates)
    done.newer = sum(found is Fate.NEWER for _, found in fates)
    if deployment.projects.find(record.reference) is None:
        deployment.projects.put(record)
    _make_live(deployment, record, archive, done, clashed=bool(clashing))
    return done


def _make_live(
    deployment: Deployment, record: ProjectRecord, archive: ArchiveReader, done: Restored, *, clashed: bool
) -> None:  # fmt: skip
    """After a clash the backup's live version is promoted; else the newest log entry says what is live."""
    registry = deployment.registry(record)
    live, wanted = registry.live(), archive.facts.get("live")
    if clashed:
        done.notes.append(REPLACED)
        if wanted and live and live.version != wanted:
            why = f"restored from the backup of {archive.facts.get('at')}"
            live = registry.deploy(wanted, expected=live.version, action="promote", by=getpass.getuser(), why=why)
    done.live = live.version if live else None
    publish(deployment.queue.redis, DEPLOY_CHANNEL, record.key)


def _fates(
    store: ObjectStore, archive: ArchiveReader, objects: Sequence[Held], report: Report
) -> list[tuple[Held, Fate]]:
    """Reads everything that is there: damage shows in the bytes alone."""
    found: list[tuple[Held, Fate]] = []
    with ThreadPoolExecutor(READERS) as pool:
        for batch in batches(objects):
            ours = pool.map(lambda held: _get(store, held.info.key), batch)
            found += [(held, fate(held, data, archive.get(STATE + held.info.key)))
                      for held, data in zip(batch, ours, strict=True)]  # fmt: skip
            report("compare with what is there", len(found), len(objects))
    return found


def _get(store: ObjectStore, key: str) -> bytes | None:
    with suppress(NotFoundError):
        return store.get(key)
    return None


def _is_json(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict | list)
    except ValueError:
        return False


def _sequence(data: bytes) -> int:
    try:
        return int(read(Kind.LATEST, data)["sequence"])
    except (ValueError, KeyError, TypeError):
        return -1


def wanted_objects(objects: Iterable[Held]) -> list[Held]:
    """Those that a new project takes over: all but what belongs to its Label Studio project alone."""
    return [held for held in objects if not held.info.key.startswith(LEFT_OUT) and held.info.key != LATEST]
