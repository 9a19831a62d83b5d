"""A snapshot, the catalogue and the kept features in, labelled examples out."""

from __future__ import annotations

from collections.abc import Container

from labelloop.catalogue import Catalogue
from labelloop.config import Weights
from labelloop.records import Bucket, Example
from labelloop.snapshot import Snapshot

EQUAL = Weights()


def examples_of(
    snapshot: Snapshot, catalogue: Catalogue, featurised: Container[str], weights: Weights = EQUAL
) -> list[Example]:
    """One example per labelled task whose image is known, readable and has features."""
    found = []
    for task in snapshot.tasks.values():
        facts = catalogue.images.get(task.uri)
        if task.label is None or facts is None or facts.problem or task.uri not in featurised:
            continue
        weight = weights.of(task.label, task.counted.completed_by if task.counted else None)
        found.append(Example(task.id, task.uri, facts.group, facts.bucket, task.label, weight))
    return found


def train_groups(snapshot: Snapshot, catalogue: Catalogue) -> frozenset[str]:
    """The duplicate groups of a snapshot that a model may have learned from."""
    facts = [catalogue.images.get(t.uri) for t in snapshot.tasks.values() if t.label is not None]
    return frozenset(f.group for f in facts if f and f.bucket is Bucket.TRAIN)
