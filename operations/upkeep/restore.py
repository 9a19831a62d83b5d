"""A backup in, the project as it was out: restored in place, or as a new project."""

from __future__ import annotations

from pathlib import Path

from labelloop.errors import CorruptArtefactError
from labelloop.store.projects import load_record
from operations.deployment import Deployment
from operations.reporting import Report
from operations.upkeep.archive import ArchiveReader
from operations.upkeep.backup import PROJECT
from operations.upkeep.restore_back import restore_in_place
from operations.upkeep.restore_new import restore_as_new
from operations.upkeep.restored import Restored, is_there


def restore(deployment: Deployment, path: Path, *, title: str | None, force: bool, report: Report) -> Restored:
    """Into the very project where Label Studio still has it and no other ``title`` is wanted; else as a new one."""
    archive = ArchiveReader(path)
    try:
        archive.verify(report)
        return _restored(deployment, archive, title=title, force=force, report=report)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:  # every hash is right
        raise CorruptArtefactError(
            f"{path} was not written by `labelloop backup`, or was changed since: {type(error).__name__}: {error}. "
            "Restore another backup"
        ) from error
    finally:
        archive.close()


def _restored(
    deployment: Deployment, archive: ArchiveReader, *, title: str | None, force: bool, report: Report
) -> Restored:  # fmt: skip
    record = load_record(archive.get(PROJECT), None, "the project in the backup")
    lost = not is_there(deployment, record)
    if title is None and not lost:
        return restore_in_place(deployment, archive, record, force=force, report=report)
    restored = restore_as_new(deployment, archive, record, title or record.title, report)
    if lost:  # nobody can look after it any more; its objects stay
        deployment.projects.remove(record.key)
    return restored
