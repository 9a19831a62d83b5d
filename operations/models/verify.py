"""The figures of a version, computed again, beside those that were recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labelloop.store.projects import ProjectRecord
from operations.deployment import Deployment
from operations.models.report import context_of

if TYPE_CHECKING:
    from retrain_worker.verify import Verified


def verified(deployment: Deployment, record: ProjectRecord, name: str | None) -> Verified:
    """Of one version, or of the live one; NotFoundError where there is none."""
    from retrain_worker.verify import verify

    context = context_of(deployment)
    return verify(context, context.project(record.key), deployment.version(record, name))
