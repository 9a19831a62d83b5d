"""What nothing needs any more out of object storage, and out of this machine's cache."""

from __future__ import annotations

from typing import Any

import structlog

from labelloop.queue.progress import JobProgress
from labelloop.upkeep.object_kinds import ObjectKind, classify
from labelloop.upkeep.tidying import Tidier, counts
from retrain_worker.compact import compact_all
from retrain_worker.context import ProjectContext

log = structlog.get_logger()


def tidy(project: ProjectContext) -> dict[str, Any]:
    """Tidy one project; returns what went: what -> [objects, bytes]."""
    progress = JobProgress.of_job()
    progress.report("find unused data")
    tidier = Tidier(project.store, project.registry, project.runs, project.record.config.retention)
    backbone = project.registry.current_backbone()
    if backbone:
        compact_all(project.catalogue, project.features(backbone.id))
    removed = counts(tidier.tidy(progress.report))
    project.keep_features(_feature_shards(project))
    log.info("tidied", action="tidy", project=project.record.key, removed=removed)
    return {"removed": removed}


def _feature_shards(project: ProjectContext) -> dict[str, set[str]]:
    """Backbone -> shards, of all that there are now."""
    shards: dict[str, set[str]] = {}
    for held in classify(project.store.list("features/")):
        if held.what is ObjectKind.INDEX:
            backbone, shard = held.names
            shards.setdefault(backbone, set()).add(shard)
    return shards
