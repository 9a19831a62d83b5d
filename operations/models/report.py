"""The evaluation report of a version: the one that its run left, or one made now from features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labelloop.images.reader import ImageReader
from labelloop.store.projects import ProjectRecord
from labelloop.store.reports import Kept, kept_report
from operations.deployment import Deployment

if TYPE_CHECKING:
    from retrain_worker.context import Context


def evaluation_report(deployment: Deployment, record: ProjectRecord, name: str | None, *, anew: bool) -> Kept:
    """Of one version, or of the live one; NotFoundError where there is none."""
    version = deployment.version(record, name)
    found = None if anew else kept_report(deployment.within(record), version.name)
    if found:
        return found
    from retrain_worker.reporting import report_of_version

    context = context_of(deployment)
    made = report_of_version(context, context.project(record.key), version)
    return Kept(made.json, made.html)


def context_of(deployment: Deployment) -> Context:
    """What a worker has, in this process."""
    from retrain_worker.context import Context

    settings = deployment.settings
    images = ImageReader(deployment.s3, settings.image_buckets)
    return Context(settings, deployment.queue.redis, deployment.store, images)
