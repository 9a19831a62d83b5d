"""Which network a new project begins with: looks at some of its images, at the weights here, and for a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from labelloop.config.networks import NetworkChoice, choose
from labelloop.decoding.declared import sides_of
from labelloop.errors import ImageUnreadableError, QueueError
from labelloop.objects.storage import S3Store
from labelloop.queue.heartbeat import alive

if TYPE_CHECKING:
    from operations.deployment import Deployment

SAMPLE = 24  # images
HEAD = 65536  # bytes in which nearly every format gives its size


def choose_network(deployment: Deployment, image_uri: str) -> NetworkChoice:
    """Never fails for an image or a worker that cannot be asked: then it decides without."""
    from labelloop.model.weights import source_of  # huggingface_hub and timm, where weights must be looked for

    settings = deployment.settings
    return choose(
        sides(deployment, image_uri),
        lambda name: source_of(name, settings.weights_dirs, offline=settings.offline),
        gpu=_has_gpu(deployment),
    )


def _has_gpu(deployment: Deployment) -> bool:
    """Whether a running worker reports one."""
    try:
        return any(facts.get("gpus") for facts in alive(deployment.queue.redis).values())
    except QueueError:
        return False


def sides(deployment: Deployment, image_uri: str) -> list[int]:
    """Longer sides of some of the images, in pixels; what is no image is passed over."""
    return list(_sides(deployment, image_uri))


def _sides(deployment: Deployment, image_uri: str) -> Iterator[int]:
    bucket, _, prefix = image_uri.removeprefix("s3://").partition("/")
    for info in islice(S3Store(deployment.s3, bucket).list(prefix), SAMPLE):
        try:
            answer = deployment.s3.get_object(Bucket=bucket, Key=info.key, Range=f"bytes=0-{HEAD - 1}")
            with answer["Body"] as body:
                yield max(sides_of(body.read(HEAD)))
        except (ClientError, BotoCoreError, OSError, ImageUnreadableError):
            continue  # no image, or one that gives its size further behind
