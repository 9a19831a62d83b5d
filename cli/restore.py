"""A backup in, the project as it was out: put back into the very one, or made anew."""

from __future__ import annotations

from pathlib import Path

from cli.archive import ArchiveReader
from cli.backup import PROJECT
from cli.deployment import Deployment
from cli.restore_anew import make_anew
from cli.restore_back import put_back
from cli.restored import Restored, is_there
from cli.setup import Report
from labelloop.projects import load_record


def restore(deployment: Deployment, path: Path, *, title: str | None, force: bool, report: Report) -> Restored:
    """Into the very project where Label Studio still has it and no other ``title`` is wanted; else as a new one."""
    archive = ArchiveReader(path)
    try:
        archive.verify(report)
        record = load_record(archive.get(PROJECT), None, f"the project in {path}")
        lost = not is_there(deployment, record)
        if title is None and not lost:
            return put_back(deployment, archive, record, force=force, report=report)
        made = make_anew(deployment, archive, record, title or record.title, report)
        if lost:  # nobody can look after it any more; its objects stay
            deployment.projects.remove(record.key)
        return made
    finally:
        archive.close()
