"""Frozen records that travel between rooms, and their JSON form."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from labelloop.records.json import fields_of, to_dict


@dataclass(frozen=True, slots=True)
class Seen:
    """The prediction in front of the person, or (``blind``) the one kept from them."""

    version: str
    label: str | None
    blind: bool = False
    probability: float | None = None  # what the model gave its label, in [0, 1]; None: not known
    chosen: bool = False  # blind by chance although the model chose it, and not one of the random quota


@dataclass(frozen=True, slots=True)
class Annotation:
    """One person's answer to one task, as Label Studio holds it. Times are UTC ISO 8601."""

    id: int
    created_at: str
    updated_at: str
    label: str | None  # None: skipped, or nothing chosen
    cancelled: bool = False
    ground_truth: bool = False
    completed_by: int | None = None
    lead_time_s: float | None = None
    seen: Seen | None = None
    seed: bool = False  # revealed at set-up, not given by a person
    problem: str | None = None  # why the result could not be read, e.g. a class that the label config lacks
    changed_by: int | None = None  # who changed it last, where that was somebody else
    given: str | None = None  # the class of ``completed_by``, where somebody else has changed it since
    bulk: bool = False  # made by Label Studio from a prediction, without anybody who looked
    of: str | None = None  # the image that it was given for, where its task has come to show another one
    outdated: str | None = None  # when other bytes were found in place of those that were labelled


@dataclass(frozen=True, slots=True)
class Task:
    """One image in Label Studio with all annotations it has now."""

    id: int
    uri: str
    updated_at: str
    annotations: tuple[Annotation, ...] = ()
    majority: bool = False  # see `counted`; set by `labelloop.rules.schema`, never kept

    @property
    def counted(self) -> Annotation | None:
        """The annotation that counts: a ground truth, else the newest that is neither skipped nor empty.

        With ``majority`` the newest of the class that most people chose; of equally many the class chosen last.
        """
        answers = [a for a in self.annotations if a.label is not None and not a.cancelled]
        answers = [a for a in answers if a.ground_truth] or answers
        if self.majority and answers:
            votes = Counter(_votes(answers))
            answers = [a for a in answers if votes[a.label] == max(votes.values())]
        return max(answers, key=_by_age, default=None)

    @property
    def label(self) -> str | None:
        """The class that counts."""
        counted = self.counted
        return counted.label if counted else None

    @property
    def skipped(self) -> bool:
        """True where people answered, but only by skipping."""
        return self.label is None and any(a.cancelled for a in self.annotations)


def _votes(answers: Iterable[Annotation]) -> Iterable[str | None]:
    """One class of each person, the last one; an answer of nobody known stands for itself."""
    last: dict[object, str | None] = {}
    for answer in sorted(answers, key=_by_age):
        last[("answer", answer.id) if answer.completed_by is None else answer.completed_by] = answer.label
    return last.values()


def _by_age(answer: Annotation) -> tuple[str, int]:
    return answer.updated_at, answer.id


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """One place in the queue: which image, what the model says of it, and whether that is shown."""

    uri: str
    priority: float  # in [0, 1]; lowest is served first
    label: str | None
    probability: float | None
    blind: bool
    why: str  # quota | cold-start | uncertain | rest


_ALWAYS = frozenset({
    "id", "created_at", "updated_at", "label", "cancelled", "ground_truth", "completed_by", "lead_time_s", "seen",
    "seed", "problem",
})  # fmt: skip
_ALWAYS_SEEN = frozenset({"version", "label", "blind"})


def task_line(task: Task) -> dict[str, Any]:
    """A task as a snapshot holds it, whose id is its bytes.

    A field that is added to `Annotation` or `Seen` later stands there only where it says something: no snapshot changes
    its id.
    """
    line = to_dict(task)
    del line["majority"]
    for annotation in line["annotations"]:
        _leave_out(annotation, _later(Annotation, _ALWAYS))
        if annotation["seen"]:
            _leave_out(annotation["seen"], _later(Seen, _ALWAYS_SEEN))
    return line


def _leave_out(data: dict[str, Any], later: Iterable[tuple[str, Any]]) -> None:
    for name, default in later:
        if data[name] == default:
            del data[name]


@functools.cache
def _later(record: type, always: frozenset[str]) -> tuple[tuple[str, Any], ...]:
    return tuple((f.name, f.default) for f in fields(record) if f.name not in always)


def annotation_from(data: Mapping[str, Any]) -> Annotation:
    """The inverse of `to_dict` for an annotation."""
    shown = data.get("seen")
    seen = Seen(**{"label": None, **fields_of(Seen, shown)}) if shown else None
    return Annotation(**{"label": None, **fields_of(Annotation, data), "seen": seen})


def task_from(data: Mapping[str, Any]) -> Task:
    """The inverse of `to_dict` for a task."""
    annotations = tuple(annotation_from(a) for a in data.get("annotations", ()))
    return Task(data["id"], data["uri"], data["updated_at"], annotations)
