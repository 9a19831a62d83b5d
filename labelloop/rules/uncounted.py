"""Tasks as they count in, the answers that do not count out: how many for each reason, and in which tasks. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from labelloop.labels.results import NOTHING, LabelSchema
from labelloop.records.tasks import Annotation, Task

MOST = 50  # reasons: a script may give every answer a class of its own
FEW = 5  # tasks that are named
REMEDY = "open the tasks, choose exactly one class, submit"


@dataclass(frozen=True, slots=True)
class Uncounted:
    """One reason."""

    reason: str
    count: int
    tasks: tuple[int, ...]  # the first few
    links: tuple[str, ...] = ()  # to these

    @property
    def told(self) -> str:
        """In one line."""
        more = " …" if self.count > len(self.links) else ""
        return f"{self.count} × {self.reason}: {' '.join(self.links) or 'no task is known'}{more}"


def uncounted(tasks: Iterable[Task], schema: LabelSchema, link: Callable[[int], str]) -> tuple[Uncounted, ...]:
    """Answers that are neither skipped nor a class of the label config on an image; most frequent reason first.

    ``tasks`` with classes as they count.
    """
    tasks_by_reason: dict[str, list[int]] = {}
    for task in tasks:
        for answer in task.annotations:
            reason = _why(task, answer, schema)
            if reason and not _is_settled(task, answer):
                tasks_by_reason.setdefault(reason, []).append(task.id)
    return grouped(tasks_by_reason, link)


def grouped(tasks_by_reason: Mapping[str, Iterable[int]], link: Callable[[int], str]) -> tuple[Uncounted, ...]:
    """Reasons with the tasks of each, most frequent first; the rarest together where there are very many."""
    rows = []
    for reason, numbers in tasks_by_reason.items():
        ids = list(numbers)
        few = tuple(i for i in dict.fromkeys(sorted(ids)) if i)[:FEW]
        rows.append(Uncounted(reason, len(ids), few, tuple(map(link, few))))
    rows.sort(key=lambda row: (-row.count, row.reason))
    rest = rows[MOST:]
    if rest:
        few = tuple(i for row in rest for i in row.tasks)[:FEW]
        count = sum(row.count for row in rest)
        rows[MOST:] = [Uncounted(f"one of {len(rest)} more reasons", count, few, tuple(map(link, few)))]
    return tuple(rows)


def _is_settled(task: Task, answer: Annotation) -> bool:
    """True where somebody has looked since, at an answer that was set aside."""
    if not (answer.outdated or answer.bulk):
        return False
    since = answer.outdated or answer.updated_at
    return any(other.updated_at > since and not (other.outdated or other.bulk) for other in task.annotations)


def _why(task: Task, answer: Annotation, schema: LabelSchema) -> str | None:
    if answer.cancelled:
        return None
    if answer.label is None:
        return answer.problem or NOTHING
    if not task.uri:
        return f"the task has no image under {schema.data_key!r} that can be read"
    if answer.label not in schema.classes:
        return f"class {answer.label[:60]!r} is not in the label config (`labelloop schema` decides)"
    return None
