"""An S3 client with time-outs, a few retries and enough connections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from labelloop.config.settings import Settings
from labelloop.errors import SettingsError
from labelloop.objects.s3_keys import following_client, keys_are_followed

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True)
class Patience:
    """How long object storage may hang before a call is given up."""

    connect_s: float = 3
    read_s: float = 20
    tries: int = 3


IMPATIENT = Patience(connect_s=2, read_s=5, tries=2)  # where somebody waits for the answer


def s3_client(settings: Settings, patience: Patience = Patience()) -> S3Client:  # it is frozen
    """A client with time-outs, a few retries and enough connections for the threads that share it."""
    config = Config(
        connect_timeout=patience.connect_s,
        read_timeout=patience.read_s,
        retries={"mode": "standard", "max_attempts": patience.tries},
        max_pool_connections=32,
        s3={"addressing_style": "path"},
        signature_version="s3v4",  # boto3 would presign with version 2, which servers refuse by now
    )
    try:
        client = following_client(settings, config) if keys_are_followed(settings) else _client(settings, config)
    except (BotoCoreError, ValueError) as error:
        why = f"{error}; check LABELLOOP_S3_ENDPOINT and LABELLOOP_S3_REGION"
        raise SettingsError(f"no S3 client can be made: {why}") from error
    client.meta.events.register_last("before-call.s3", _expect_nothing)
    return client


def _client(settings: Settings, config: Config) -> S3Client:
    return boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        aws_access_key_id=settings.s3_access_key,
        aws_secret_access_key=settings.s3_secret_key,
        region_name=settings.s3_region,
        config=config,
    )


def _expect_nothing(params: dict[str, Any], **_: Any) -> None:
    """Send bodies at once: botocore, waiting for "100 Continue", reads for ever where the line breaks in its middle."""
    params["headers"].pop("Expect", None)
