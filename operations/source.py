"""How a project's images in S3 are connected to Label Studio: for wiring, for checks, for handing over new keys."""

from __future__ import annotations

from typing import Any

from labelloop.config.settings import Settings
from labelloop.decoding.endings import SUFFIXES
from labelloop.store.projects import ProjectRecord

IMAGE_PATTERN = rf"(?i).*\.({'|'.join(ending.removeprefix('.') for ending in SUFFIXES)})$"


def storage_fields(settings: Settings, record: ProjectRecord) -> dict[str, Any]:
    """A source storage as it should be; it holds the secret key."""
    bucket, _, prefix = record.image_uri.removeprefix("s3://").partition("/")
    return {
        "title": "labelloop images", "bucket": bucket, "prefix": prefix.rstrip("/"), "regex_filter": IMAGE_PATTERN,
        "use_blob_urls": True, "presign": False, "recursive_scan": True, "region_name": settings.s3_region,
        "s3_endpoint": settings.s3_endpoint, **key_fields(settings),
    }  # fmt: skip


def key_fields(settings: Settings) -> dict[str, Any]:
    """The keys alone."""
    return {"aws_access_key_id": settings.s3_access_key, "aws_secret_access_key": settings.s3_secret_key}
