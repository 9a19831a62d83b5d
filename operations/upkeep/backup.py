"""A project in, one file with all that it is out: consistent although the loop goes on, and every hash verified."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from labelloop.clock import now
from labelloop.code import code_version
from labelloop.errors import (
    CorruptArtefactError,
    CorruptObjectError,
    ImageUnreadableError,
    LabelloopError,
    NotFoundError,
)
from labelloop.images.reader import ImageReader
from labelloop.objects.copies import copy_key
from labelloop.objects.formats import Kind, read
from labelloop.records.json import canonical
from labelloop.store.catalogue import Catalogue
from labelloop.store.projects import COPY, ProjectRecord, dump_record
from labelloop.store.registry import ASIDE, LOG
from labelloop.store.runs import RunStore
from labelloop.store.snapshots import LATEST
from labelloop.studio.archive import StudioArchive, task_line
from labelloop.upkeep.object_kinds import ObjectKind, StoredObject, classify
from labelloop.upkeep.tidying import DONE, Tidier
from operations.deployment import Deployment
from operations.reporting import Report
from operations.upkeep.archive import ArchiveWriter, is_safe
from operations.upkeep.soundness import Inspector

READERS = 8
BATCH = 64
BATCH_BYTES = 64_000_000  # read ahead at most
ROUNDS = 3  # features are gathered into larger files now and then: what went meanwhile is looked for again
PROJECT, STATE, TASKS = "project.json", "state/", "studio/tasks/"
SETTINGS, LABEL_CONFIG = "studio/settings.json", "studio/label_config.xml"
LEFT_OUT = ("requests/", DONE, ASIDE, copy_key(COPY))  # of use only now, set aside, or beside in the archive
MOVING = (LOG, LATEST)  # what names the rest; all else that names something is never replaced
SOLID = {ObjectKind.HEAD, ObjectKind.SHARD, ObjectKind.WEIGHTS}  # never gathered into anything else


@dataclass(frozen=True, slots=True)
class BackupParts:
    """What goes in beside the rest."""

    features: bool = True  # they can be computed again
    images: bool = False


@dataclass
class BackedUp:
    """What was written."""

    path: str
    project: str
    live: str | None = None
    bytes: int = 0
    objects: int = 0
    tasks: int = 0
    annotations: int = 0
    images: int = 0
    damaged: list[str] = field(default_factory=list)  # what could not be taken along, and why


def backup(deployment: Deployment, record: ProjectRecord, path: Path, parts: BackupParts, report: Report) -> BackedUp:
    """Write the file; it is whole, or not there."""
    done = BackedUp(str(path), record.title, _live(deployment, record))
    with ArchiveWriter(path) as archive:
        at, job = now(), _BackupJob(deployment, record, archive, done, report)
        archive.add(PROJECT, dump_record(record))
        _Copier(job).run(parts)
        uris = _studio(job)
        if parts.images:
            _images(job, uris)
        archive.finish({
            "at": at, "code": code_version(), "project": record.key, "title": record.title, "live": done.live,
            "wanted": asdict(parts), "tasks": done.tasks, "annotations": done.annotations, "damaged": done.damaged,
        })  # fmt: skip
    done.bytes = path.stat().st_size
    return done


def _live(deployment: Deployment, record: ProjectRecord) -> str | None:
    live = deployment.registry(record).live()
    return live.version if live else None


def image_name(uri: str) -> str:
    """The member that holds an image."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return f"images/{bucket}/{quote(key, safe='')}"


def image_uri(name: str) -> str:
    """The inverse of `image_name`."""
    bucket, _, key = name.removeprefix("images/").partition("/")
    return f"s3://{bucket}/{unquote(key)}"


@dataclass(frozen=True, slots=True)
class _BackupJob:
    deployment: Deployment
    record: ProjectRecord
    archive: ArchiveWriter
    done: BackedUp
    report: Report


# --- what lies in object storage


class _Copier:
    """Copies what a project's references reach, each object once."""

    def __init__(self, job: _BackupJob) -> None:
        self._job, self._store = job, job.deployment.within(job.record)
        registry = job.deployment.registry(job.record)
        self._tidier = Tidier(self._store, registry, RunStore(self._store), job.record.config.retention)
        self._inspector = Inspector()
        self._seen: set[str] = set()
        self._latest = b"{}"

    def run(self, parts: BackupParts) -> None:
        """References first, then all that they reach: that is never replaced, so it is still what they meant."""
        self._copy([h for h in self._listed() if h.info.key.startswith(MOVING)], "back up the log")
        for _ in range(ROUNDS):
            kept = self._kept()
            objects = [h for h in self._listed() if kept is None or h.info.key in kept]
            if not parts.features:
                objects = [h for h in objects if h.what not in {ObjectKind.INDEX, ObjectKind.ROWS}]
            if not self._copy(objects, "back up models and features"):
                return
        raise LabelloopError("too much changed during the backup: run it again at a quieter time")

    def _listed(self) -> list[StoredObject]:
        objects = classify(self._store.list(""))
        return [h for h in objects if h.info.key not in self._seen and not h.info.key.startswith(LEFT_OUT)]

    def _kept(self) -> set[str] | None:
        """What something needs; None, which means all, where a damaged record leaves that open."""
        try:
            return {item.key for item in self._tidier.decide().keep} | self._newest_snapshot()
        except CorruptArtefactError:
            return None

    def _newest_snapshot(self) -> set[str]:
        """What `latest` named when it was copied: meanwhile another one may be the newest."""
        with suppress(ValueError, KeyError, NotFoundError):  # damaged: what is newest now is taken along anyway
            name = read(Kind.LATEST, self._latest)["snapshot"]
            manifest = f"snapshots/manifests/{name}.json"
            shards = read(Kind.SNAPSHOT, self._store.get(manifest))["shards"].values()
            return {manifest, *(f"snapshots/shards/{shard}.jsonl.gz" for shard in shards)}
        return set()

    def _copy(self, objects: Sequence[StoredObject], step: str) -> bool:
        """True where something vanished that may live on in another object."""
        order, copied, vanished = list(ObjectKind), 0, False
        with ThreadPoolExecutor(READERS) as pool:
            for batch in batches(sorted(objects, key=lambda h: order.index(h.what))):
                for held, data in zip(batch, pool.map(self._get, batch), strict=True):
                    self._seen.add(held.info.key)
                    if data is None:
                        vanished = (
                            vanished or held.what is not ObjectKind.OTHER or held.info.key.startswith("catalogue/")
                        )
                    else:
                        self._keep(held, data)
                copied += len(batch)
                self._job.report(step, copied, len(objects))
        return vanished

    def _get(self, held: StoredObject) -> bytes | None:
        try:
            return self._store.get(held.info.key)
        except CorruptObjectError:  # too large to be read: its lack shows, and is reported
            return b""
        except NotFoundError:
            if held.what in SOLID:
                raise LabelloopError(f"{held.info.key} was deleted during the backup: run it again") from None
            return None

    def _keep(self, held: StoredObject, data: bytes) -> None:
        if held.info.key == LATEST:
            self._latest = data
        name = f"{STATE}{held.info.key}"
        why = self._inspector.fault(held, data) or (None if is_safe(name) else "its name cannot be kept")
        if why:
            self._job.done.damaged.append(f"{held.info.key}: {why}")
            return
        self._job.archive.add(name, data)
        self._job.done.objects += 1


def batches(objects: Iterable[StoredObject]) -> Iterator[list[StoredObject]]:
    """A few at a time: no more than may lie in memory together."""
    batch: list[StoredObject] = []
    size = 0
    for held in objects:
        if batch and (len(batch) == BATCH or size + held.info.size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(held)
        size += held.info.size
    if batch:
        yield batch


# --- what lies in Label Studio, and the images


def _studio(job: _BackupJob) -> list[str]:
    """Settings, tasks, answers; returns the images' addresses."""
    studio, done = StudioArchive(job.deployment.studio), job.done
    job.archive.add(SETTINGS, canonical(studio.settings(job.record.id)))
    job.archive.add(LABEL_CONFIG, job.deployment.studio.project(job.record.id).label_config.encode())
    total = job.deployment.studio.task_count(job.record.id)
    uris: dict[str, None] = {}
    for number, tasks in enumerate(studio.tasks(job.record.id), 1):
        job.archive.add(f"{TASKS}{number:06d}.jsonl", b"\n".join(canonical(task_line(task)) for task in tasks))
        done.tasks += len(tasks)
        done.annotations += sum(len(task.annotations) for task in tasks)
        uris.update(dict.fromkeys(task.uri(job.record.schema) for task in tasks))
        job.report("back up tasks and answers", done.tasks, max(total, done.tasks))
    done.damaged += studio.damaged
    return [uri for uri in uris if uri]


def _images(job: _BackupJob, uris: Iterable[str]) -> None:
    """Of the tasks, and those that the model knows of removed tasks."""
    catalogue = Catalogue(job.deployment.within(job.record))
    catalogue.update()
    images = [uri for uri in dict.fromkeys([*uris, *catalogue.images]) if uri.startswith("s3://")]  # others: mirror/
    reader = ImageReader(job.deployment.s3, job.deployment.settings.image_buckets)

    def get(uri: str) -> bytes | str:
        try:
            return reader.read(uri)[0]
        except ImageUnreadableError as error:
            return str(error)

    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(images), READERS):
            part = images[start : start + READERS]
            for uri, data in zip(part, pool.map(get, part), strict=True):
                if isinstance(data, str):
                    job.done.damaged.append(data)
                elif is_safe(image_name(uri)):
                    job.archive.add(image_name(uri), data)
                    job.done.images += 1
            job.report("back up images", start + len(part), len(images))
