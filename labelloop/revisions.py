"""A snapshot and what is known of its images in, what became of every annotation in a fit out. Pure.

The same rules as `retrain_worker.examples` and `retrain_worker.evidence`, without what they need to compute; a test
holds the two together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from labelloop.records import Annotation, Bucket, ImageFacts, Task


class Use(StrEnum):
    """What an annotation was good for."""

    TRAINED = "trained"
    DUPLICATE = "duplicate"  # another image that shows the same, with the same label, trained in its place
    CONFLICT = "conflict"  # images that show the same have different labels: none of them trains
    WAITING = "waiting"  # its class has too few labels to enter the head
    TEST = "test"  # judges, never trains
    AUDIT = "audit"  # reports, never trains
    QUARANTINE = "quarantine"  # the image looks like images of two groups: neither trains nor judges
    UNUSABLE = "unusable"  # the image cannot be read, or has no features
    OLDER = "older"  # another answer to the same task counts
    SKIPPED = "skipped"
    EMPTY = "empty"  # nothing chosen, or a class that the label config lacks


@dataclass(frozen=True, slots=True)
class Revision:
    """One annotation as it was in a snapshot."""

    task: int
    annotation: int
    updated_at: str
    label: str | None
    by: int | None  # account id in Label Studio
    uri: str
    use: Use


def revisions(
    tasks: Iterable[Task],
    images: Mapping[str, ImageFacts],
    featurised: Collection[str],
    classes: Collection[str | None],
) -> tuple[Revision, ...]:
    """Every annotation of ``tasks`` with its use under a head that knows ``classes``, by task."""
    ordered = sorted(tasks, key=lambda t: t.id)
    uses = _uses(ordered, images, featurised, classes)
    found = []
    for task in ordered:
        counted = task.counted
        for a in task.annotations:
            use = uses[task.id] if a is counted else _passed_over(a)
            found.append(Revision(task.id, a.id, a.updated_at, a.label, a.completed_by, task.uri, use))
    return tuple(found)


def tally(found: Iterable[Revision]) -> dict[str, int]:
    """Use -> how many, in the order of `Use`; uses that do not occur are left out."""
    counts = Counter(r.use for r in found)
    return {use.value: counts[use] for use in Use if counts[use]}


def _passed_over(annotation: Annotation) -> Use:
    if annotation.cancelled:
        return Use.SKIPPED
    return Use.OLDER if annotation.label is not None else Use.EMPTY


def _uses(
    tasks: Iterable[Task],
    images: Mapping[str, ImageFacts],
    featurised: Collection[str],
    classes: Collection[str | None],
) -> dict[int, Use]:
    """Task id -> use of the annotation that counts."""
    found: dict[int, Use] = {}
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        facts = images.get(task.uri)
        if facts is None or facts.problem or task.uri not in featurised:
            found[task.id] = Use.UNUSABLE
        elif facts.bucket is not Bucket.TRAIN:
            found[task.id] = Use(facts.bucket.value)
        elif task.label is not None:
            groups.setdefault(facts.group, []).append(task)
    for same in groups.values():
        found.update(_of_group(sorted(same, key=lambda t: (t.uri, t.id)), classes))
    return found


def _of_group(same: list[Task], classes: Collection[str | None]) -> dict[int, Use]:
    """The first of the tasks that show the same image stands for all of them."""
    if len({t.label for t in same}) > 1:
        return {t.id: Use.CONFLICT for t in same}
    if same[0].label not in classes:
        return {t.id: Use.WAITING for t in same}
    return {t.id: Use.DUPLICATE if i else Use.TRAINED for i, t in enumerate(same)}
