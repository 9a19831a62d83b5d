"""An S3 address in, the image's bytes out: only from the buckets that are allowed. For others see `mirror`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from labelloop.config.settings import Settings
from labelloop.decoding.budget import Budget
from labelloop.decoding.endings import BEFORE, NO_ENDING, SUFFIXES, no_image
from labelloop.errors import ImageUnreadableError, StorageError
from labelloop.images.first_bytes import FirstBytes
from labelloop.names import encodable, shown, unfit
from labelloop.objects.storage import ObjectInfo, S3Store
from labelloop.store.projects import ProjectRecord

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MAX_BYTES = 50_000_000
ARRIVING = 60_000_000  # bytes of images that are being read at once: the largest, and small ones
ARRIVING_S = 60.0
REASONS = 8  # why objects are left out: so many are counted apart
PART = 512  # objects that are judged together
GONE = {"NoSuchKey", "404", "NotFound", "NoSuchBucket", "NoSuchVersion"}
FORBIDDEN = {"AccessDenied", "403", "Forbidden"}


class Reader(Protocol):
    """What reads images; `ImageReader`, or a fake."""

    def read(self, uri: str) -> tuple[bytes, str]:
        """(bytes, etag); ImageUnreadableError for this image alone, StorageError where a retry may help.

        DecodersBusyError where too many bytes of other images are arriving.
        """


class ImageReader:
    """Reads ``s3://bucket/key`` from allowed buckets. Safe to share between threads."""

    def __init__(self, client: S3Client, buckets: Collection[str], *, max_bytes: int = MAX_BYTES) -> None:
        self._client = client
        self._buckets = frozenset(buckets)
        self._max_bytes = max_bytes
        self._arriving = Budget(max(ARRIVING, max_bytes), large=max(ARRIVING, max_bytes), small=0)

    def read(self, uri: str) -> tuple[bytes, str]:
        bucket, key = allowed(uri, self._buckets)
        try:
            answer = self._client.get_object(Bucket=bucket, Key=key)
            self._check_size(uri, answer["ContentLength"])
            with answer["Body"] as body, self._arriving.hold(answer["ContentLength"], ARRIVING_S):
                return body.read(), answer["ETag"].strip('"')
        except ClientError as error:
            raise _translated(error, uri) from error
        except (BotoCoreError, OSError) as error:  # time-outs, refused and broken connections
            raise _away(error, uri) from error

    def etag(self, uri: str) -> str:
        """Of the bytes that are there now; ImageUnreadableError, StorageError."""
        bucket, key = allowed(uri, self._buckets)
        try:
            return self._client.head_object(Bucket=bucket, Key=key)["ETag"].strip('"')
        except ClientError as error:
            raise _translated(error, uri) from error
        except (BotoCoreError, OSError) as error:
            raise _away(error, uri) from error

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
    if key != encodable(key):
        raise ImageUnreadableError(f"{shown(uri)} is no address: it is not UTF-8. Give the object another name")
    return bucket, key


def image_reader(settings: Settings, client: S3Client) -> ImageReader:
    """The reader of a deployment: its allowed buckets alone."""
    return ImageReader(client, settings.image_buckets)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Objects that are no images of the project, for one reason."""

    count: int
    example: str  # a key


class ImageListing:
    """(uri, etag) of every object that becomes a task; ``left_out``, by reason, is known once all were read.

    ``first_bytes`` judges the objects without an ending; without it they are left out, as in older projects.
    """

    def __init__(self, infos: Iterable[ObjectInfo], bucket: str, first_bytes: FirstBytes | None = None) -> None:
        self._infos, self._bucket, self._first_bytes = infos, bucket, first_bytes
        self._endings = SUFFIXES if first_bytes else BEFORE
        self.left_out: dict[str, LeftOut] = {}

    def __iter__(self) -> Iterator[tuple[str, str]]:
        infos = iter(self._infos)
        while part := list(islice(infos, PART)):
            reasons = {info.key: unfit(info.key) or no_image(info.key, self._endings) for info in part}
            if self._first_bytes:
                reasons |= self._first_bytes.judge([info for info in part if _asks_for_bytes(info.key, reasons)])
            for info in part:
                why = reasons[info.key]
                if why is None:
                    yield f"s3://{self._bucket}/{info.key}", info.etag
                elif not info.key.endswith("/"):  # a folder, as some tools make them
                    self._leave_out(info.key, why)
        if self._first_bytes:
            self._first_bytes.end()

    def _leave_out(self, key: str, why: str) -> None:
        if why not in self.left_out and len(self.left_out) >= REASONS:
            why = "other names"
        entry = self.left_out.get(why, LeftOut(0, key))
        self.left_out[why] = LeftOut(entry.count + 1, entry.example)


def _asks_for_bytes(key: str, reasons: Mapping[str, str | None]) -> bool:
    return reasons[key] == NO_ENDING and not key.endswith("/")


def list_images(client: S3Client, uri: str, first_bytes: FirstBytes | None = None) -> ImageListing:
    """What lies under ``s3://bucket/prefix``; reading it may raise StorageError."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return ImageListing(S3Store(client, bucket).list(prefix), bucket, first_bytes)


def listed_etags(client: S3Client, record: ProjectRecord) -> Iterator[tuple[str, str]]:
    """(uri, etag) of every object under the project's image place, image or not; StorageError."""
    bucket, _, prefix = record.image_uri.removeprefix("s3://").partition("/")
    return ((f"s3://{bucket}/{info.key}", info.etag) for info in S3Store(client, bucket).list(prefix))


def listing_of(client: S3Client, record: ProjectRecord) -> Callable[[], ImageListing]:
    """Lists a project's images whenever it is called; what is known of first bytes is kept from call to call."""
    bucket = record.image_uri.removeprefix("s3://").partition("/")[0]
    first_bytes = FirstBytes(client, bucket) if record.by_bytes else None
    return lambda: list_images(client, record.image_uri, first_bytes)


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


def _away(error: Exception, uri: str) -> StorageError:
    return StorageError(f"{uri}: {error}; is the S3 endpoint up, and LABELLOOP_S3_ENDPOINT right?")


def short(uri: str) -> str:
    """An address as a log may show it: no query (it may hold a signature), no endless data URI."""
    text = uri.partition("?")[0]
    return text if len(text) <= 200 else text[:197] + "..."
