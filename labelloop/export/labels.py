"""Annotated tasks and the facts of their images in, the rows of a data set out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from labelloop.records.images import ImageFacts, Split
from labelloop.records.tasks import Annotation, Task

COLUMNS = (
    "uri", "label", "bucket", "annotator", "annotation_id", "task_id", "created", "updated", "lead_time_s",
    "seen_version", "seen_label", "seen_blind", "ground_truth", "skipped", "seed", "given_label", "answers", "problem",
    "sha256", "etag", "file",
)  # fmt: skip
FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # a spreadsheet would run what follows
CONTROL = ("\t", "\r", "\n")
QUOTE = "'"


@dataclass(frozen=True, slots=True)
class ExportRow:
    """One task as it is exported."""

    task: Task  # as people gave it
    label: str | None  # the class that counts; None: skipped, or its answer cannot be read
    counted: Annotation | None  # the answer that gives it
    facts: ImageFacts | None  # None: not looked at yet
    file: str = ""  # as it was called where it was uploaded from; else the key below the project's prefix

    @property
    def split(self) -> str:
        """Empty where it is not decided yet."""
        return self.facts.bucket.value if self.facts else ""


@dataclass(frozen=True, slots=True)
class ExportFilter:
    """Which tasks."""

    split: Split | None = None
    with_skipped: bool = False  # also those without a class


def select(
    tasks: Iterable[Task], images: Mapping[str, ImageFacts], only: ExportFilter, *, counting: Callable[[Task], Task],
    file_of: Callable[[str], str] = lambda uri: uri,
) -> list[ExportRow]:  # fmt: skip
    """The tasks that are wanted, by id. ``counting`` gives a task with classes as they count."""
    rows = [
        replace(_labelled(task, counting(task), images.get(task.uri)), file=file_of(task.uri))
        for task in sorted(tasks, key=lambda t: t.id)
    ]
    return [
        row
        for row in rows
        if (row.label is not None or only.with_skipped)
        and (only.split is None or (row.facts is not None and row.facts.bucket is only.split))
    ]


def csv_row(row: ExportRow) -> list[str]:
    """The cells of one row, in the order of `COLUMNS`, safe to open in a spreadsheet."""
    values = _values(row)
    return [_cell(values[name]) for name in COLUMNS]


def safe_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula: one ' in front where it might.

    To read it back, remove exactly one leading ': texts that begin with one of their own get another.
    """
    risky = text.lstrip().startswith(FORMULA) or text.startswith((*CONTROL, QUOTE))
    return QUOTE + text if risky else text


def to_json(row: ExportRow) -> dict[str, Any]:
    """One task with all its answers."""
    return {
        "task": row.task.id, "uri": row.task.uri, "file": row.file, "label": row.label, "bucket": row.split or None,
        "counts": row.counted.id if row.counted else None, "skipped": row.task.skipped,
        "image": _image(row.facts), "annotations": [asdict(a) for a in row.task.annotations],
    }  # fmt: skip


def _image(facts: ImageFacts | None) -> dict[str, Any] | None:
    if facts is None:
        return None
    return {"etag": facts.etag, "sha256": facts.sha256, "group": facts.group, "problem": facts.problem}


def _labelled(task: Task, counting: Task, facts: ImageFacts | None) -> ExportRow:
    counted = counting.counted
    answer = next((a for a in task.annotations if counted and _same(a, counted)), None)
    return ExportRow(task, counting.label, answer, facts)


def _same(one: Annotation, other: Annotation) -> bool:
    return (one.id, one.created_at) == (other.id, other.created_at)


def _values(row: ExportRow) -> dict[str, Any]:
    answer = row.counted or _last(row.task)
    prediction = answer.seen if answer else None
    problem = (answer.problem if answer else None) or (row.facts.problem if row.facts else None)
    return {
        "uri": row.task.uri, "label": row.label, "bucket": row.split, "task_id": row.task.id,
        "skipped": row.task.skipped, "answers": len(row.task.annotations), "problem": problem,
        "annotator": answer and answer.completed_by, "annotation_id": answer and answer.id,
        "created": answer and answer.created_at, "updated": answer and answer.updated_at,
        "lead_time_s": answer and answer.lead_time_s, "ground_truth": bool(answer and answer.ground_truth),
        "seed": bool(answer and answer.seed), "given_label": answer and answer.label,
        "seen_version": prediction and prediction.version, "seen_label": prediction and prediction.label,
        "seen_blind": prediction and prediction.blind,
        "sha256": row.facts and row.facts.sha256, "etag": row.facts and row.facts.etag,
        "file": row.file,
    }  # fmt: skip


def _last(task: Task) -> Annotation | None:
    """Of a task without a class: its newest answer, which says why."""
    return max(task.annotations, key=lambda a: (a.updated_at, a.id), default=None)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return safe_cell(value) if isinstance(value, str) else str(value)
