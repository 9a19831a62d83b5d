"""A backup in, a new Label Studio project out that goes on where the old one was: labels, models, log, features."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from labelloop.errors import CorruptObjectError, LabelloopError, SettingsError
from labelloop.images.reader import allowed
from labelloop.labels.results import LabelSchema, parse_label_config
from labelloop.objects.storage import S3Store
from labelloop.store.deleted import KEY as DELETED
from labelloop.store.deleted import deleted_from
from labelloop.store.projects import ProjectRecord
from labelloop.store.snapshots import LATEST
from labelloop.studio.archive import KeptTask, StudioArchive, task_of
from operations.deployment import Deployment
from operations.projects.wiring import Wish, ensure_bucket, wire
from operations.reporting import Report
from operations.source import storage_fields
from operations.upkeep.archive import ArchiveReader
from operations.upkeep.backup import LABEL_CONFIG, LEFT_OUT, READERS, SETTINGS, STATE, TASKS, image_uri
from operations.upkeep.restored import Restored, held_in, is_there

AT_ONCE = 4  # answers given at the same time
IMPORTED = 200  # tasks in one request
DATES = "Label Studio gives each answer a new date; the original one is in the meta of its result (`restored`)"
SHOWN = "the new project does not know which pre-label was shown with an old answer"


@dataclass(frozen=True, slots=True)
class _RestoreJob:
    deployment: Deployment
    archive: ArchiveReader
    record: ProjectRecord  # of the new project
    done: Restored
    report: Report

    @property
    def studio(self) -> StudioArchive:
        return StudioArchive(self.deployment.studio)

    @property
    def schema(self) -> LabelSchema:
        return self.record.schema

    def tasks(self) -> Iterator[list[KeptTask]]:
        """Those of the backup, page by page."""
        for name in sorted(self.archive.names(TASKS)):
            yield [task_of(json.loads(line)) for line in self.archive.get(name).splitlines() if line]


def restore_as_new(
    deployment: Deployment, archive: ArchiveReader, old: ProjectRecord, title: str, report: Report
) -> Restored:  # fmt: skip
    """Whole, or not at all: an unfinished project is deleted again."""
    _check(deployment, old, title)
    images = _images(deployment, archive, report)
    label_config = archive.get(LABEL_CONFIG).decode()
    parse_label_config(label_config)
    project = StudioArchive(deployment.studio).create(title, label_config, json.loads(archive.get(SETTINGS)))
    record = ProjectRecord(  # under the same config, the runs that came along still count
        deployment.settings.studio_server,
        project.id,
        project.created,
        project.title,
        old.config,
        label_config,
        old.image_uri,
        made=old.made,
        network=old.network,
    )
    job = _RestoreJob(deployment, archive, record, Restored(title, record.key, anew=True, images=images), report)
    try:
        _objects(job)
        _tasks(job)
        _wire(job)
    except BaseException:  # an interrupt, too
        _undo(job)
        raise
    return job.done


def _check(deployment: Deployment, old: ProjectRecord, title: str) -> None:
    taken = {other.title for other in deployment.projects.all() if other.key != old.key or is_there(deployment, old)}
    if title in taken:
        raise SettingsError(f"a project is called {title!r} already: choose another name with --title")
    bucket = old.image_uri.removeprefix("s3://").partition("/")[0]
    if bucket not in deployment.settings.image_buckets:
        raise SettingsError(
            f"the project's images are in {old.image_uri}, which is not allowed here: add {bucket} to "
            "LABELLOOP_IMAGE_BUCKETS"
        )


def _images(deployment: Deployment, archive: ArchiveReader, report: Report) -> int:
    """Upload the images that the backup holds and their bucket lacks."""
    names, put = archive.names("images/"), 0
    buckets: set[str] = set()
    for done, name in enumerate(names, 1):
        bucket, key = allowed(image_uri(name), deployment.settings.image_buckets)
        if bucket not in buckets:
            ensure_bucket(deployment.s3, bucket)
            buckets.add(bucket)
        store = S3Store(deployment.s3, bucket)
        if not store.exists(key):
            store.put(key, archive.get(name))
            put += 1
        report("restore images", done, len(names))
    return put


def _objects(job: _RestoreJob) -> None:
    """All but the snapshot that is the newest: it is recomputed from the new project's tasks."""
    left_out = (*LEFT_OUT, LATEST)
    store = job.deployment.within(job.record)
    objects = [held for held in held_in(job.archive) if not held.info.key.startswith(left_out)]
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(objects), READERS):
            part = [held.info.key for held in objects[start : start + READERS]]
            data = [job.archive.get(STATE + key) for key in part]
            list(pool.map(store.put, part, data))
            job.done.put += len(part)
            job.report("restore models and features", job.done.put, len(objects))
    live = job.deployment.registry(job.record).live()
    job.done.live = live.version if live else None


def _tasks(job: _RestoreJob) -> None:
    """Label Studio makes the tasks of the bucket itself: only then it does not make them again at the next sync."""
    studio, project = job.deployment.studio, job.record.id
    fields = storage_fields(job.deployment.settings, job.record)
    storage = int(studio.add_storage(project, **fields)["id"])
    total = int(job.archive.facts.get("tasks", 0))

    def report() -> None:
        job.report("import the images into Label Studio", min(studio.task_count(project), total), total)

    _while(lambda: studio.sync_storage(storage), report)
    there: dict[str, set[int]] = {}
    for page in studio.all_tasks(project, job.schema):
        for stub in page:
            there.setdefault(stub.uri, set()).add(stub.id)
    _answers(job, there)
    _remove_deleted(job, there)
    _compare(job)


def _while(work: Callable[[], object], report: Callable[[], None]) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work)
        while not running.done():
            with suppress(LabelloopError):  # a courtesy
                report()
            time.sleep(1)
        running.result()


def _answers(job: _RestoreJob, there: dict[str, set[int]]) -> None:
    """Give the tasks their answers; those whose image is elsewhere are imported with theirs. ``there`` is used up."""
    studio, missing = job.studio, list[KeptTask]()
    total = int(job.archive.facts.get("annotations", 0))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for page in job.tasks():
            pairs = []
            for task in page:
                ids = there.get(task.uri(job.schema))
                if ids:
                    pairs.append((min(ids), task))
                    ids.discard(min(ids))
                else:
                    missing.append(task)
            for task in pool.map(lambda pair: _answer(studio, pair, job.schema), pairs):
                job.done.annotations += len(task.annotations)
                job.report("restore the answers", job.done.annotations, total)
            job.done.tasks += len(pairs)
    for start in range(0, len(missing), IMPORTED):
        part = missing[start : start + IMPORTED]
        studio.add(job.record.id, part)
        job.done.tasks += len(part)
        job.done.annotations += sum(len(task.annotations) for task in part)
        job.report("restore the answers", job.done.annotations, total)
    _note(job)


def _answer(studio: StudioArchive, pair: tuple[int, KeptTask], schema: LabelSchema) -> KeptTask:
    studio.answer(pair[0], pair[1], schema)
    return pair[1]


def _remove_deleted(job: _RestoreJob, there: dict[str, set[int]]) -> None:
    """Images whose tasks people had removed."""
    if STATE + DELETED not in job.archive.names(STATE):
        return
    try:
        deleted = deleted_from(job.archive.get(STATE + DELETED))
    except CorruptObjectError as error:
        job.done.notes.append(f"tasks that people had removed are there again: {error.reason}")
        return
    tasks = [number for uri in sorted(deleted) for number in there.get(uri, ())]
    for done, number in enumerate(tasks, 1):
        job.deployment.studio.delete_task(number)
        job.report("remove deleted tasks again", done, len(tasks))


def _compare(job: _RestoreJob) -> None:
    counts = {stub.id: len(stub.annotations) for page in job.deployment.studio.all_tasks(job.record.id, job.schema)
              for stub in page}  # fmt: skip
    expected = int(job.archive.facts.get("annotations", 0))
    if sum(counts.values()) != expected:
        raise LabelloopError(
            f"Label Studio holds {sum(counts.values())} answers of {expected} after the restore: the new project "
            f"was removed again. Retry, and check Label Studio's log"
        )


def _note(job: _RestoreJob) -> None:
    if not job.done.annotations:
        return
    strangers = sorted(set(_authors(job.tasks())) - set(job.deployment.studio.people().values()))
    job.done.notes += [DATES, SHOWN]
    if strangers:
        job.done.notes.append(
            f"answers of {', '.join(strangers)}, who are not in this Label Studio, are stored under our account; "
            f"the meta of their results names the author"
        )


def _authors(pages: Iterable[list[KeptTask]]) -> Iterator[str]:
    return (a.by for page in pages for task in page for a in task.annotations if a.by)


def _wire(job: _RestoreJob) -> None:
    """From here on the watcher looks after it."""
    wish = Wish(job.record.config, job.record.image_uri, adopt=job.record.id)
    record, findings = wire(job.deployment.studio, job.deployment.projects, job.deployment.settings, wish)
    job.done.key = record.key
    job.done.notes += [f"{f.what}: {f.note}" for f in findings if not f.ok]


def _undo(job: _RestoreJob) -> None:
    store = job.deployment.within(job.record)
    with suppress(LabelloopError):
        job.deployment.projects.remove(job.record.key)
    with suppress(LabelloopError):
        job.studio.remove(job.record.id)
    with suppress(LabelloopError):
        for info in list(store.list("")):
            store.delete(info.key)
