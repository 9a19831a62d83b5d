"""Objects without an ending in, which of them are images out: a few bytes of each are read, once for each ETag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from labelloop.decoding.endings import HEAD, NO_FORMAT, no_format
from labelloop.objects.storage import ObjectInfo, S3Store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

READERS = 8
UNREAD = "its name has no ending, and it cannot be read"


class FirstBytes:
    """What is known of one bucket's objects without an ending. For one thread."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client, self._bucket = client, bucket
        self._judged: dict[str, tuple[str, str | None]] = {}  # key -> (ETag, why it is no image)
        self._listed: dict[str, tuple[str, str | None]] = {}  # of the listing that is being read

    def judge(self, infos: Sequence[ObjectInfo]) -> Mapping[str, str | None]:
        """Key -> why it is no image, or None; StorageError where object storage is away."""
        reasons: dict[str, str | None] = {}
        new = [info for info in infos if self._judged.get(info.key, ("", None))[0] != info.etag]
        if new:
            with ThreadPoolExecutor(READERS) as pool:
                reasons = dict(zip((i.key for i in new), pool.map(self._look, new), strict=True))
        for info in infos:
            why = reasons[info.key] if info.key in reasons else self._judged[info.key][1]
            reasons[info.key] = why
            if why != UNREAD:  # that may change
                self._listed[info.key] = (info.etag, why)
        return reasons

    def end(self) -> None:
        """A listing was read to its end: objects that were not in it are forgotten."""
        self._judged, self._listed = self._listed, {}

    def _look(self, info: ObjectInfo) -> str | None:
        if info.size == 0:
            return NO_FORMAT
        try:
            span = f"bytes=0-{HEAD - 1}"
            answer = self._client.get_object(Bucket=self._bucket, Key=info.key, Range=span)
            with answer["Body"] as body:
                return no_format(body.read(HEAD))
        except ClientError as error:
            if int(error.response["ResponseMetadata"].get("HTTPStatusCode", 0)) >= 500:
                raise S3Store(self._client, self._bucket).translate(error, info.key) from error
            return UNREAD
        except (BotoCoreError, OSError) as error:
            raise S3Store(self._client, self._bucket).translate(error, info.key) from error
