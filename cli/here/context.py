"""What a worker would have, of a deployment that a command speaks to."""

from __future__ import annotations

from labelloop.images.reader import ImageReader
from operations.deployment import Deployment
from retrain_worker.context import Context


def context_of(deployment: Deployment) -> Context:
    """Stores, images and settings of the deployment."""
    settings = deployment.settings
    images = ImageReader(deployment.s3, settings.image_buckets)
    return Context(settings, deployment.queue.redis, deployment.store, images)
