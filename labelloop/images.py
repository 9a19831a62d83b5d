"""An S3 address in, the image's bytes out: only from the buckets that are allowed. For others see `mirror`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from labelloop.errors import ImageUnreadableError, StorageError
from labelloop.rotation import following_client, keys_are_followed
from labelloop.settings import Settings
from labelloop.storage import S3Store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MAX_BYTES = 50_000_000
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
GONE = {"NoSuchKey", "404", "NotFound", "NoSuchBucket", "NoSuchVersion"}
FORBIDDEN = {"AccessDenied", "403", "Forbidden"}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long object storage may hang before a call is given up."""

    connect_s: float = 3
    read_s: float = 20
    tries: int = 3


IMPATIENT = Patience(connect_s=2, read_s=5, tries=2)  # where somebody waits for the answer


class Reader(Protocol):
    """What reads images; `ImageReader`, or a fake."""

    def read(self, uri: str) -> tuple[bytes, str]:
        """(bytes, etag); ImageUnreadableError for this image alone, StorageError where a retry may help."""


class ImageReader:
    """Reads ``s3://bucket/key`` from allowed buckets. Safe to share between threads."""

    def __init__(self, client: S3Client, buckets: Collection[str], *, max_bytes: int = MAX_BYTES) -> None:
        self._client = client
        self._buckets = frozenset(buckets)
        self._max_bytes = max_bytes

    def read(self, uri: str) -> tuple[bytes, str]:
        bucket, key = allowed(uri, self._buckets)
        try:
            answer = self._client.get_object(Bucket=bucket, Key=key)
            self._check_size(uri, answer["ContentLength"])
            with answer["Body"] as body:
                return body.read(), answer["ETag"].strip('"')
        except ClientError as error:
            raise _translated(error, uri) from error
        except (BotoCoreError, OSError) as error:  # time-outs, refused and broken connections
            raise StorageError(f"{uri}: {error}; is the S3 endpoint up, and LABELLOOP_S3_ENDPOINT right?") from error

    def _check_size(self, uri: str, size: int) -> None:
        if size > self._max_bytes:
            raise ImageUnreadableError(
                f"{uri} has {size:,} bytes; the limit is {self._max_bytes:,}. Store a smaller copy of the image"
            )


def allowed(uri: str, buckets: Collection[str]) -> tuple[str, str]:
    """(bucket, key) of an address that may be read; ImageUnreadableError says why it may not."""
    scheme, separator, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if not separator or scheme != "s3":
        raise ImageUnreadableError(
            f"{short(uri)} is no s3://bucket/key address, and not one that sync copies (uploads to Label Studio, "
            "http(s):// of LABELLOOP_IMAGE_HOSTS): put the image into a bucket and connect that in Label Studio"
        )
    if bucket not in buckets:
        names = ", ".join(sorted(buckets)) or "none"
        raise ImageUnreadableError(
            f"{short(uri)} is in bucket {bucket!r}, which is not allowed ({names}); add it to LABELLOOP_IMAGE_BUCKETS"
        )
    if not key:
        raise ImageUnreadableError(f"{short(uri)} names a bucket, but no image in it")
    return bucket, key


def s3_client(settings: Settings, patience: Patience = Patience()) -> S3Client:  # it is frozen
    """A client with time-outs, a few retries and enough connections for the threads that share it."""
    config = Config(
        connect_timeout=patience.connect_s,
        read_timeout=patience.read_s,
        retries={"mode": "standard", "max_attempts": patience.tries},
        max_pool_connections=32,
        s3={"addressing_style": "path"},
    )
    if keys_are_followed(settings):
        client = following_client(settings, config)
    else:
        client = boto3.client(
            "s3",
            endpoint_url=settings.s3_endpoint,
            aws_access_key_id=settings.s3_access_key,
            aws_secret_access_key=settings.s3_secret_key,
            region_name=settings.s3_region,
            config=config,
        )
    client.meta.events.register_last("before-call.s3", _expect_nothing)
    return client


def _expect_nothing(params: dict[str, Any], **_: Any) -> None:
    """Send bodies at once: botocore, waiting for "100 Continue", reads for ever where the line breaks in its middle."""
    params["headers"].pop("Expect", None)


def image_reader(settings: Settings, client: S3Client) -> ImageReader:
    """The reader of a deployment: its allowed buckets alone."""
    return ImageReader(client, settings.image_buckets)


def list_images(client: S3Client, uri: str) -> Iterator[tuple[str, str]]:
    """(uri, etag) of every object under ``s3://bucket/prefix`` whose name ends like an image's; StorageError."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    for info in S3Store(client, bucket).list(prefix):
        if info.key.lower().endswith(SUFFIXES):
            yield f"s3://{bucket}/{info.key}", info.etag


def _translated(error: ClientError, uri: str) -> ImageUnreadableError | StorageError:
    code = str(error.response["Error"].get("Code", ""))
    status = int(error.response["ResponseMetadata"].get("HTTPStatusCode", 0))
    if code in GONE:
        return ImageUnreadableError(f"{uri} does not exist; was it moved after the tasks were imported?")
    if code in FORBIDDEN:
        return ImageUnreadableError(f"{uri} may not be read; let the S3 user read that bucket")
    if 400 <= status < 500 and status not in {408, 429}:
        return ImageUnreadableError(f"{uri} cannot be read: {error}")
    return StorageError(f"{uri}: {error}; object storage has trouble, try again")


def short(uri: str) -> str:
    """An address as a log may show it: no query (it may hold a signature), no endless data URI."""
    text = uri.partition("?")[0]
    return text if len(text) <= 200 else text[:197] + "..."
