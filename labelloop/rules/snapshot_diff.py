"""Two sets of annotated tasks in, what people did in between out. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from labelloop.records.tasks import Annotation, Task


class ChangeKind(StrEnum):
    """What became of a task. The first four are about the class that counts."""

    ADDED = "added"  # has a label now
    RELABELLED = "relabelled"
    REMOVED = "removed"  # has neither label nor skip any more, or the task is gone
    SKIPPED = "skipped"  # people pass it over now; a label it had no longer counts
    REVISED = "revised"  # answers came, went or moved, the class stayed


@dataclass(frozen=True, slots=True)
class TaskChange:
    """One task that differs."""

    what: ChangeKind
    task: int
    uri: str
    before: str | None  # the class that counted
    after: str | None
    by: tuple[int, ...]  # accounts whose answers came, changed or went; who deleted one, Label Studio does not tell
    at: str  # the newest of the answers that differ
    seed: bool = False  # revealed at set-up


@dataclass(frozen=True, slots=True)
class AnnotationCounts:
    """Answers, not tasks: one task may have several."""

    added: int = 0
    changed: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True)
class SnapshotDiff:
    """Everything that differs, newest first."""

    changes: tuple[TaskChange, ...]
    annotations: AnnotationCounts
    classes: Mapping[str, tuple[int, int]]  # class -> labels before and after
    people: Mapping[int, Mapping[str, int]]  # account -> what -> tasks

    @property
    def counts(self) -> dict[str, int]:
        """What -> tasks, all of them, also 0."""
        tasks = Counter(c.what for c in self.changes)
        return {what.value: tasks[what] for what in ChangeKind}


Answers = dict[tuple[int, str], Annotation]  # ids of deleted annotations come back: the time tells them apart


def diff(before: Mapping[int, Task], after: Mapping[int, Task]) -> SnapshotDiff:
    """What turned ``before`` into ``after``, both by task id."""
    counts = {"added": 0, "changed": 0, "removed": 0}
    changes = []
    for task in before.keys() | after.keys():
        old, new = before.get(task), after.get(task)
        if old == new:
            continue
        moved = _moved(_answers(old), _answers(new), counts)
        change = _change(old, new, moved)
        if change:
            changes.append(change)
    changes.sort(key=lambda c: (c.at, c.task), reverse=True)
    return SnapshotDiff(
        tuple(changes), AnnotationCounts(**counts), _classes(before.values(), after.values()), _people(changes)
    )


def _answers(task: Task | None) -> Answers:
    return {(a.id, a.created_at): a for a in task.annotations} if task else {}


def _moved(old: Answers, new: Answers, counts: dict[str, int]) -> list[Annotation]:
    """The answers that differ, as they are now or were last; counted by the way."""
    moved = []
    for key in old.keys() | new.keys():
        was, now = old.get(key), new.get(key)
        if was == now:
            continue
        counts["added" if was is None else "removed" if now is None else "changed"] += 1
        last = now or was
        assert last is not None
        moved.append(last)
    return moved


def _change(old: Task | None, new: Task | None, moved: list[Annotation]) -> TaskChange | None:
    task = new or old
    if task is None or not (moved or (old and new and old.uri != new.uri)):  # only a time moved: nobody did anything
        return None
    return TaskChange(
        what=_what(old, new), task=task.id, uri=task.uri,
        before=old.label if old else None, after=new.label if new else None,
        by=tuple(sorted({a.completed_by for a in moved if a.completed_by is not None})),
        at=max((a.updated_at for a in moved), default=task.updated_at), seed=any(a.seed for a in moved),
    )  # fmt: skip


def _what(old: Task | None, new: Task | None) -> ChangeKind:
    before, after = old.label if old else None, new.label if new else None
    if after is not None:
        return ChangeKind.ADDED if before is None else ChangeKind.REVISED if before == after else ChangeKind.RELABELLED
    if new and new.skipped:
        return ChangeKind.REVISED if old and old.skipped else ChangeKind.SKIPPED
    if before is None and new is not None and not (old and old.skipped):
        return ChangeKind.REVISED  # an answer without a class: empty, or one that the label config lacks
    return ChangeKind.REMOVED


def _classes(before: Iterable[Task], after: Iterable[Task]) -> dict[str, tuple[int, int]]:
    old, new = (Counter(t.label for t in tasks if t.label is not None) for tasks in (before, after))
    return {name: (old[name], new[name]) for name in sorted(old.keys() | new.keys())}


def _people(changes: Iterable[TaskChange]) -> dict[int, dict[str, int]]:
    counts: dict[int, Counter[str]] = {}
    for change in changes:
        for account in change.by:
            counts.setdefault(account, Counter())[change.what.value] += 1
    return {account: dict(sorted(counts[account].items())) for account in sorted(counts)}
