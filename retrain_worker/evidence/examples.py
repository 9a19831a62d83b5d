"""A snapshot, the catalogue and the kept features in, labelled examples out."""

from __future__ import annotations

from collections.abc import Container, Sequence

from labelloop.config.project import LabelWeights
from labelloop.images.reader import short
from labelloop.records.images import Example, Split
from labelloop.records.snapshots import Snapshot
from labelloop.records.tasks import Task
from labelloop.rules.outdated import outdated
from labelloop.store.catalogue import Catalogue
from labelloop.store.features import lacks

EQUAL = LabelWeights()
NAMED = 3
LACKING = "`labelloop status` says why"


def examples_of(
    snapshot: Snapshot, catalogue: Catalogue, featurised: Container[str], weights: LabelWeights = EQUAL
) -> list[Example]:
    """One example per labelled task whose image is known, readable and has features."""
    examples = []
    for task in snapshot.tasks.values():
        facts = catalogue.images.get(task.uri)
        answer = task.counted
        if (
            answer is None
            or task.label is None
            or facts is None
            or facts.problem
            or not facts.group
            or task.uri not in featurised
        ):
            continue
        if outdated(catalogue.images, task.uri, answer):  # other bytes came after the snapshot was frozen
            continue
        weight = weights.of(task.label, answer.completed_by)
        examples.append(Example(task.id, task.uri, facts.group, facts.bucket, task.label, weight, facts.twins))
    return examples


def without_features(snapshot: Snapshot, catalogue: Catalogue, featurised: Container[str]) -> list[Task]:
    """Labelled tasks whose images are not known to be unreadable, and lack what a head learns from all the same."""
    labelled = (t for t in snapshot.tasks.values() if t.label is not None and t.uri)
    return [t for t in labelled if lacks(t.uri, catalogue.images.get(t.uri), featurised)]


def without_words(tasks: Sequence[Task]) -> str:
    """Which, and what to do."""
    named = ", ".join(f"task {t.id} ({short(t.uri)})" for t in tasks[:NAMED])
    more = f" and {len(tasks) - NAMED} more" if len(tasks) > NAMED else ""
    return f"learned without {len(tasks)} labelled images that have no features yet: {named}{more}; {LACKING}"


def train_groups(snapshot: Snapshot, catalogue: Catalogue) -> frozenset[str]:
    """The duplicate groups of a snapshot that a model may have learned from."""
    facts = [catalogue.images.get(t.uri) for t in snapshot.tasks.values() if t.label is not None]
    return frozenset(f.group for f in facts if f and f.bucket is Split.TRAIN)
