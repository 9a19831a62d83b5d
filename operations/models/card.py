"""Gather what a model card contains."""

from __future__ import annotations

from labelloop.export.card import VersionOrigin, card
from labelloop.rules.schema import LabelRules
from labelloop.store.catalogue import Catalogue
from labelloop.store.configs import kept_config
from labelloop.store.projects import ProjectRecord
from labelloop.store.snapshots import SnapshotStore
from operations.deployment import Deployment


def model_card(deployment: Deployment, record: ProjectRecord, name: str | None) -> str:
    """Of one version, or of the champion; NotFoundError where there is none."""
    store, registry = deployment.within(record), deployment.registry(record)
    version, catalogue = deployment.version(record, name), Catalogue(store)
    catalogue.update()
    snapshot = LabelRules.of(record.config).read(SnapshotStore(store).load(version.snapshot))
    return card(VersionOrigin(
        title=record.title, version=version, backbone=registry.backbone(version.backbone),
        tasks=list(snapshot.tasks.values()), images=catalogue.images, config=kept_config(store, version.config),
        decisions=[d for d in registry.decisions() if version.name in {d.rejected or d.version}],
    ))  # fmt: skip
