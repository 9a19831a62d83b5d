"""Images that show the same, and those that stand between two groups: their labels, and what becomes of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from labelloop.records.images import ImageFacts, Split
from labelloop.records.tasks import Task
from labelloop.rules.schema import LabelRules
from labelloop.store.catalogue import Catalogue
from labelloop.store.projects import ProjectRecord
from labelloop.store.snapshots import SnapshotStore
from operations.deployment import Deployment


@dataclass(frozen=True, slots=True)
class DuplicateImage:
    """One image of a group."""

    uri: str
    task: int | None  # none: it has no label
    label: str | None
    same_bytes: bool  # as the first image of the group
    twin: str = ""  # images of one picture: its labels count once


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Related images. They are in one split; those of one picture count once."""

    group: str
    bucket: str
    members: tuple[DuplicateImage, ...]

    @property
    def contradicts(self) -> bool:
        """Whether people gave one picture different classes: then none of its labels counts."""
        return bool(self.questions)

    @property
    def questions(self) -> tuple[tuple[DuplicateImage, ...], ...]:
        """Images of one picture with different classes, for a person to say which one is right."""
        pictures: dict[str, list[DuplicateImage]] = defaultdict(list)
        for member in self.members:
            if member.label:
                pictures[member.twin].append(member)
        return tuple(tuple(same) for same in pictures.values() if len({m.label for m in same}) > 1)

    @property
    def why(self) -> str:
        """What it means for the loop."""
        if self.bucket == Split.QUARANTINE.value:
            return "the same picture is in two splits: neither trains nor judges"
        if self.contradicts:
            return "one picture, two classes: which one is right? Until then not learned"
        pictures = len({m.twin for m in self.members})
        return "counts once" if pictures == 1 else f"{pictures} related pictures, in one split"


def duplicates(deployment: Deployment, record: ProjectRecord) -> list[DuplicateGroup]:
    """Of a project, by its newest snapshot."""
    store = deployment.within(record)
    catalogue, snapshots = Catalogue(store), SnapshotStore(store)
    catalogue.update()
    latest = snapshots.latest()
    tasks = LabelRules.of(record.config).read(snapshots.load(latest.snapshot)).tasks.values() if latest else ()
    return groups_of(catalogue.images.values(), tasks)


def groups_of(images: Iterable[ImageFacts], tasks: Iterable[Task]) -> list[DuplicateGroup]:
    """Groups of several images and images in quarantine; those that need a person first."""
    labelled = {task.uri: task for task in tasks}
    by_group: dict[tuple[str, str], list[DuplicateImage]] = defaultdict(list)
    for facts in sorted((f for f in images if f.group), key=lambda f: f.uri):
        task = labelled.get(facts.uri)
        member = DuplicateImage(facts.uri, task.id if task else None, task.label if task else None,
                                facts.sha256 == facts.group, facts.twins)  # fmt: skip
        by_group[facts.group, facts.bucket.value].append(member)
    groups = [DuplicateGroup(group, split, tuple(members)) for (group, split), members in by_group.items()]
    shown = [g for g in groups if len(g.members) > 1 or g.bucket == Split.QUARANTINE.value]
    return sorted(shown, key=lambda g: (not g.contradicts, g.bucket != Split.QUARANTINE.value, g.members[0].uri))
