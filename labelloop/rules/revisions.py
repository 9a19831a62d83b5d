"""A snapshot and what is known of its images in, what became of every annotation in a fit out. Pure.

The same rules as in `retrain_worker.evidence`, without what they need to compute; a test holds the two together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from labelloop.records.images import ImageFacts, Split
from labelloop.records.tasks import Annotation, Task


class Use(StrEnum):
    """What an annotation was good for."""

    TRAINED = "trained"
    DUPLICATE = "duplicate"  # another image of the same picture, with the same label, counts in its place
    CONFLICT = "conflict"  # images of the same picture have different labels: none of them counts
    RELATED = "related"  # another image of its group reports in its place: of an audit group one picture does
    WAITING = "waiting"  # its class has too few labels to enter the head
    TEST = "test"  # judges, never trains
    AUDIT = "audit"  # reports, never trains
    QUARANTINE = "quarantine"  # the image looks like images of two groups: neither trains nor judges
    UNUSABLE = "unusable"  # the image cannot be read, or has no features
    OLDER = "older"  # another answer to the same task counts
    SKIPPED = "skipped"
    EMPTY = "empty"  # nothing chosen, or a class that the label config lacks


ASIDE = {
    Use.DUPLICATE: "another image of the same picture counts in their place",
    Use.CONFLICT: "one picture with two classes: `labelloop duplicates` asks which is right",
    Use.RELATED: "another audit image of their group reports in their place",
    Use.QUARANTINE: "the same picture is in two splits",
}


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
    featurised: Container[str],
    classes: Collection[str | None],
) -> tuple[Revision, ...]:
    """Every annotation of ``tasks`` with its use under a head that knows ``classes``, by task."""
    ordered = sorted(tasks, key=lambda t: t.id)
    uses = _uses(ordered, images, featurised, classes)
    rows = []
    for task in ordered:
        counted = task.counted
        for a in task.annotations:
            use = uses[task.id] if a is counted else _passed_over(a)
            rows.append(Revision(task.id, a.id, a.updated_at, a.label, a.completed_by, task.uri, use))
    return tuple(rows)


def aside(tasks: Iterable[Task], images: Mapping[str, ImageFacts], featurised: Container[str]) -> dict[str, int]:
    """Why labels do not count that would, were it not for other images -> how many."""
    labelled = [t for t in tasks if t.label is not None]
    uses = Counter(
        _uses(sorted(labelled, key=lambda t: t.id), images, featurised, {t.label for t in labelled}).values()
    )
    return {why: uses[use] for use, why in ASIDE.items() if uses[use]}


def tally(rows: Iterable[Revision]) -> dict[str, int]:
    """Use -> how many, in the order of `Use`; uses that do not occur are left out."""
    counts = Counter(r.use for r in rows)
    return {use.value: counts[use] for use in Use if counts[use]}


def _passed_over(annotation: Annotation) -> Use:
    if annotation.cancelled:
        return Use.SKIPPED
    return Use.OLDER if annotation.label is not None else Use.EMPTY


def _uses(
    tasks: Iterable[Task],
    images: Mapping[str, ImageFacts],
    featurised: Container[str],
    classes: Collection[str | None],
) -> dict[int, Use]:
    """Task id -> use of the annotation that counts."""
    uses: dict[int, Use] = {}
    units: dict[str, list[tuple[Task, ImageFacts]]] = {}
    for task in tasks:
        facts = images.get(task.uri)
        if facts is None or facts.problem or not facts.group or task.uri not in featurised:
            uses[task.id] = Use.UNUSABLE
        elif facts.bucket is Split.QUARANTINE:
            uses[task.id] = Use.QUARANTINE
        elif task.label is not None:
            units.setdefault(facts.unit, []).append((task, facts))
    for members in units.values():
        uses.update(_of_unit(sorted(members, key=lambda m: (m[0].uri, m[0].id)), classes))
    return uses


def _of_unit(members: list[tuple[Task, ImageFacts]], classes: Collection[str | None]) -> dict[int, Use]:
    """Of an audit group the first picture on whose label people agree; of a test group all, which speak once."""
    pictures: dict[str, list[Task]] = {}
    for task, facts in members:
        pictures.setdefault(facts.twins, []).append(task)
    uses: dict[int, Use] = {}
    first = _first_use(members[0][1].bucket)
    for same in pictures.values():
        if len({t.label for t in same}) > 1:
            uses.update({t.id: Use.CONFLICT for t in same})
            continue
        use = first
        if first is Use.TRAINED and same[0].label not in classes:
            uses.update({t.id: Use.WAITING for t in same})
            continue
        uses.update({t.id: Use.DUPLICATE if i else use for i, t in enumerate(same)})
        first = Use.TEST if first is Use.TEST else Use.RELATED
    return uses


def _first_use(split: Split) -> Use:
    return Use.TRAINED if split is Split.TRAIN else Use(split.value)
