"""Answers as a snapshot holds them in, one look per answer out: what was before the person, and what they did. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from labelloop.records.tasks import Annotation, Seen, Task
from labelloop.rules.schema import AS_GIVEN, LabelRules


class Showing(StrEnum):
    """How an image came to a person."""

    SHOWN = "shown"  # chosen by the model, with its pre-label
    HIDDEN = "hidden"  # chosen by the model, without: by chance, so that it is like those shown
    DRAWN = "drawn"  # at random from test and audit, without


@dataclass(frozen=True, slots=True)
class Look:
    """One answer to an image of which the model had said something."""

    task: int
    who: int | None  # Label Studio's account
    at: str  # UTC
    kind: Showing
    predicted: str | None  # what the model said, as the class counts now; None: it counts no more
    probability: float | None  # of that, in [0, 1]; None: not known
    said: str | None  # what the person said, as the class counts now; None: skipped, or it counts no more
    departed: bool  # they did not say what the model did; a skip is a departure, too
    skipped: bool = False
    seconds: float | None = None  # from the opening of the page to the submit
    right: bool | None = None  # by a ground truth, or somebody else's answer to the same task
    corrected: bool = False  # somebody else has changed the class since

    @property
    def accepted(self) -> bool:
        """The pre-label was there, and it was taken."""
        return self.kind is Showing.SHOWN and not self.departed


def looks_of(tasks: Iterable[Task], rules: LabelRules = AS_GIVEN) -> list[Look]:
    """All looks, oldest first. ``tasks``: as they were given, not read through ``rules``.

    Left out: seeds, answers before the first model, and those of which nobody knows what was before the person.
    """
    return in_order(look for task in tasks for look in _looks(task, rules))


def in_order(looks: Iterable[Look]) -> list[Look]:
    """The oldest first."""
    return sorted(looks, key=lambda look: (look.at, look.task))


def _looks(task: Task, rules: LabelRules) -> Iterator[Look]:
    for annotation in task.annotations:
        seen, label = annotation.seen, annotation.given or annotation.label
        if seen is None or seen.label is None or annotation.seed or annotation.problem:
            continue
        if label is not None or (annotation.cancelled and not seen.blind):  # a blind skip tells nothing of the model
            yield _look(task, annotation, seen, rules)


def _look(task: Task, annotation: Annotation, seen: Seen, rules: LabelRules) -> Look:
    label = annotation.given or annotation.label
    lead = annotation.lead_time_s
    return Look(
        task=task.id, who=annotation.completed_by, at=annotation.created_at, kind=_kind(seen),
        predicted=_now(seen.label, rules), probability=seen.probability, said=_now(label, rules),
        departed=_departed(label, seen, rules), skipped=label is None,
        seconds=lead if lead is not None and lead > 0 else None,
        right=_right(task, annotation, rules), corrected=annotation.given is not None,
    )  # fmt: skip


def _kind(seen: Seen) -> Showing:
    if not seen.blind:
        return Showing.SHOWN
    return Showing.HIDDEN if seen.chosen else Showing.DRAWN


def _now(label: str | None, rules: LabelRules) -> str | None:
    return rules.resolve(label) if label is not None else None


def _departed(label: str | None, seen: Seen, rules: LabelRules) -> bool:
    """By the names of that time: who corrected a class did look, although the two have been merged since.

    What was hidden may stand under a name that an older order gave it.
    """
    if label is None or label == seen.label:
        return label is None
    return not (seen.blind and _now(label, rules) == _now(seen.label, rules))


def _right(task: Task, annotation: Annotation, rules: LabelRules) -> bool | None:
    """None where nobody else has a say on this image, or the person said nothing."""
    label, truth = annotation.given or annotation.label, _known(task, annotation)
    return None if label is None or truth is None else _now(label, rules) == _now(truth, rules)


def _known(task: Task, annotation: Annotation) -> str | None:
    answers = [a for a in task.annotations if a.label is not None and not a.cancelled]
    truths = [a for a in answers if a.ground_truth]
    others = [a for a in answers if a.completed_by != annotation.completed_by]
    newest = max(truths or others, key=lambda a: (a.updated_at, a.id), default=None)
    return newest.label if newest else None
