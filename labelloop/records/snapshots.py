"""All annotated tasks at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from labelloop.clock import parse
from labelloop.records.tasks import Task


@dataclass(frozen=True, slots=True)
class Latest:
    """The small mutable ref: which snapshot is newest, and how far the change feed was read."""

    snapshot: str
    sequence: int
    cursor: str  # `updated_at` of the newest change seen
    frozen_at: str
    annotations: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All annotated tasks at one moment. ``id`` is the manifest's hash."""

    id: str
    tasks: Mapping[int, Task]

    def labels(self) -> dict[str, str]:
        """Uri -> the class that counts."""
        return {t.uri: label for t in self.tasks.values() if (label := t.label) is not None}


def as_of(snapshot: Snapshot, moment: str, *, changed: bool = True) -> Snapshot:
    """What an older snapshot held, by a newer one: answers given, and (``changed``) last changed, until then.

    For an older one that cannot be read. Answers that were removed since are not in it.
    """
    until = _moment(moment)
    tasks = {}
    for number, task in snapshot.tasks.items():
        kept = tuple(a for a in task.annotations if _moment(a.updated_at if changed else a.created_at) <= until)
        if kept:
            tasks[number] = replace(task, annotations=kept)
    return Snapshot(snapshot.id, tasks)


def _moment(text: str) -> datetime:
    """A time that cannot be read has not come yet."""
    try:
        moment = parse(text)
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
