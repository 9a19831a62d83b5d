"""Images that show the same, and those that stand between two groups: their labels, and what becomes of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from cli.deployment import Deployment
from labelloop.catalogue import Catalogue
from labelloop.projects import ProjectRecord
from labelloop.records import Bucket, ImageFacts, Task
from labelloop.schema import LabelRules
from labelloop.snapshot import SnapshotStore


@dataclass(frozen=True, slots=True)
class Member:
    """One image of a group."""

    uri: str
    task: int | None  # none: it has no label
    label: str | None
    same_bytes: bool  # as the first image of the group


@dataclass(frozen=True, slots=True)
class Group:
    """Images that look the same. They stand in one bucket and count once."""

    group: str
    bucket: str
    members: tuple[Member, ...]

    @property
    def contradicts(self) -> bool:
        """Whether people gave different classes: then none of its labels is learned."""
        return len({m.label for m in self.members if m.label}) > 1

    @property
    def why(self) -> str:
        """What it means for the loop."""
        if self.bucket == Bucket.QUARANTINE.value:
            return "looks like images of two groups: neither trains nor judges"
        return "labels contradict each other: not learned" if self.contradicts else "counts once"


def duplicates(deployment: Deployment, record: ProjectRecord) -> list[Group]:
    """Of a project, by its newest snapshot."""
    store = deployment.within(record)
    catalogue, snapshots = Catalogue(store), SnapshotStore(store)
    catalogue.update()
    latest = snapshots.latest()
    tasks = LabelRules.of(record.config).read(snapshots.load(latest.snapshot)).tasks.values() if latest else ()
    return groups_of(catalogue.images.values(), tasks)


def groups_of(images: Iterable[ImageFacts], tasks: Iterable[Task]) -> list[Group]:
    """Groups of several images and images in quarantine; those that need a person first."""
    labelled = {task.uri: task for task in tasks}
    found: dict[tuple[str, str], list[Member]] = defaultdict(list)
    for facts in sorted((f for f in images if f.group), key=lambda f: f.uri):
        task = labelled.get(facts.uri)
        member = Member(facts.uri, task.id if task else None, task.label if task else None, facts.sha256 == facts.group)
        found[facts.group, facts.bucket.value].append(member)
    groups = [Group(group, bucket, tuple(members)) for (group, bucket), members in found.items()]
    shown = [g for g in groups if len(g.members) > 1 or g.bucket == Bucket.QUARANTINE.value]
    return sorted(shown, key=lambda g: (not g.contradicts, g.bucket != Bucket.QUARANTINE.value, g.members[0].uri))
