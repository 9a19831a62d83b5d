"""Features of images that exist only while they are read: by the worker's own code, without S3 and without a queue.

A measurement at 100,000 images would else spend most of its time on uploads and small jobs that it does not measure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sklearn.datasets import load_digits

from bench.tools.many_images import png
from labelloop.errors import ImageUnreadableError
from labelloop.objects.compaction import LARGE
from labelloop.queue.progress import JobProgress
from labelloop.records.json import digest
from labelloop.store.projects import ProjectRecord
from operations.deployment import Deployment
from retrain_worker.context import Context
from retrain_worker.featurise import featurise_under, first_backbone


class Drawn:
    """Draws an image when it is read. ``numbers``: uri -> which one."""

    def __init__(self, numbers: Mapping[str, int]) -> None:
        self._numbers, self._images = numbers, load_digits().images

    def read(self, uri: str) -> tuple[bytes, str]:
        if uri not in self._numbers:
            raise ImageUnreadableError(f"{uri} is not one of ours")
        number = self._numbers[uri]
        data = png(self._images[number % len(self._images)], number)
        return data, digest(data)[:32]


def featurise(
    deployment: Deployment, record: ProjectRecord, numbers: Mapping[str, int], report: Callable[[int], None]
) -> None:
    """Bucket and features of every image that has none yet, in shards as compaction leaves them."""
    context = Context(deployment.settings, deployment.queue.redis, deployment.store, Drawn(numbers))
    project = context.project(record.key)
    backbone = context.backbone(project, project.registry.initial_backbone() or first_backbone(context, project))
    project.catalogue.update()
    done = project.features(backbone.record.id).index.places
    missing = [uri for uri in numbers if uri not in done]
    for start in range(0, len(missing), LARGE):
        featurise_under(context, project, backbone, missing[start : start + LARGE], JobProgress())
        report(min(start + LARGE, len(missing)))
