"""Tasks as they count in, the answers that do not count out: how many for each reason, and in which tasks. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from labelloop.labels import NOTHING, LabelSchema
from labelloop.records import Annotation, Task

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
    found: dict[str, list[int]] = {}
    for task in tasks:
        for answer in task.annotations:
            reason = _why(task, answer, schema)
            if reason:
                found.setdefault(reason, []).append(task.id)
    return grouped(found, link)


def grouped(found: Mapping[str, Iterable[int]], link: Callable[[int], str]) -> tuple[Uncounted, ...]:
    """Reasons with the tasks of each, most frequent first."""
    rows = []
    for reason, numbers in found.items():
        ids = list(numbers)
        few = tuple(i for i in dict.fromkeys(sorted(ids)) if i)[:FEW]
        rows.append(Uncounted(reason, len(ids), few, tuple(map(link, few))))
    return tuple(sorted(rows, key=lambda row: (-row.count, row.reason)))


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
