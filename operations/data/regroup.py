"""Groups that an older release or another config made in, images without a decision out: the workers decide again."""

from __future__ import annotations

from dataclasses import dataclass, replace

from labelloop.clock import stamp
from labelloop.errors import NotFoundError
from labelloop.objects.damage import UNREADABLE
from labelloop.records.images import ImageFacts, Split
from labelloop.store.catalogue import Catalogue
from labelloop.store.projects import ProjectRecord
from labelloop.store.registry import Registry
from labelloop.store.snapshots import SnapshotStore
from operations.deployment import Deployment


@dataclass(frozen=True, slots=True)
class Regrouped:
    """What is decided again, and what stays."""

    images: int
    groups: int
    kept: int  # images of groups whose labels have judged a model, and files that were overwritten


def regroup(deployment: Deployment, record: ProjectRecord) -> Regrouped:
    """Reset split and group of all images whose labels have judged no model."""
    store = deployment.within(record)
    catalogue = Catalogue(store)
    catalogue.update()
    released = released_of(catalogue, deployment.registry(record), SnapshotStore(store))
    if released:
        catalogue.add([replace(f, group="", twin="", middle="", bucket=Split.TRAIN) for f in released], stamp())
    decided = sum(bool(f.group) for f in catalogue.images.values())
    return Regrouped(len(released), len({f.group for f in released}), decided - len(released))


def released_of(catalogue: Catalogue, registry: Registry, snapshots: SnapshotStore) -> list[ImageFacts]:
    """Images of groups of which no label has judged, and no file was overwritten."""
    images = catalogue.images
    judged = {images[uri].group for uri in _judged(registry, snapshots) if uri in images}
    fixed = judged | {f.group for f in images.values() if f.earlier}
    return [f for f in images.values() if f.group and f.sha256 and f.group not in fixed]


def _judged(registry: Registry, snapshots: SnapshotStore) -> set[str]:
    """Images with a label in a snapshot from which there is a version; where one is lost, with a label now."""
    latest, uris = snapshots.latest(), set[str]()
    for name in {version.snapshot for version in registry.versions()}:
        try:
            uris |= snapshots.load(name).labels().keys()
        except (*UNREADABLE, NotFoundError):
            uris |= snapshots.load(latest.snapshot).labels().keys() if latest else set()
    return uris
