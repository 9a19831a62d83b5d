"""Object storage: one small protocol, S3 behind it, and a fake with the same contract."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError, ParamValidationError

from labelloop.errors import AlreadyExistsError, CorruptObjectError, NotFoundError, StorageError
from labelloop.limits import most_of, too_large
from labelloop.records.json import digest

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One listed object."""

    key: str
    size: int
    etag: str
    modified: datetime


class ObjectStore(Protocol):
    """A flat space of immutable or overwritten byte objects. Every method may raise StorageError."""

    def get(self, key: str) -> bytes:
        """The bytes; NotFoundError where there are none, CorruptObjectError where there are too many for a record."""

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        """The bytes and the ETag they were read under."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write whole; with ``if_absent`` AlreadyExistsError where the key is taken."""

    def swap(self, key: str, data: bytes, *, etag: str) -> None:
        """Write whole in place of what was read under ``etag``; AlreadyExistsError where it has changed since."""

    def exists(self, key: str) -> bool:
        """True where the key holds an object."""

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key begins with prefix, by key; only those behind ``start_after``."""

    def delete(self, key: str) -> None:
        """Remove; no error where there is nothing."""


class S3Store:
    """One bucket of an S3 API."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self.client = client
        self.bucket = bucket

    def get(self, key: str) -> bytes:
        return self.get_with_etag(key)[0]

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        try:
            answer = self.client.get_object(Bucket=self.bucket, Key=key)
            return _bounded(key, answer["Body"], answer["ContentLength"]), answer["ETag"].strip('"')
        except (ClientError, BotoCoreError) as error:
            raise self.translate(error, key) from error

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        try:
            if if_absent:
                self.client.put_object(Bucket=self.bucket, Key=key, Body=data, IfNoneMatch="*")
            else:
                self.client.put_object(Bucket=self.bucket, Key=key, Body=data)
        except (ClientError, BotoCoreError) as error:
            raise self.translate(error, key) from error

    def swap(self, key: str, data: bytes, *, etag: str) -> None:
        try:
            self.client.put_object(Bucket=self.bucket, Key=key, Body=data, IfMatch=f'"{etag}"')
        except (ClientError, BotoCoreError) as error:
            raise self.translate(error, key) from error

    def exists(self, key: str) -> bool:
        try:
            self.client.head_object(Bucket=self.bucket, Key=key)
            return True
        except (ClientError, BotoCoreError) as error:
            translated = self.translate(error, key)
            if isinstance(translated, NotFoundError):
                return False
            raise translated from error

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix, StartAfter=start_after
        )
        try:
            for page in pages:
                for item in page.get("Contents", ()):
                    yield ObjectInfo(item["Key"], item["Size"], item["ETag"].strip('"'), item["LastModified"])
        except (ClientError, BotoCoreError) as error:
            raise self.translate(error, prefix) from error

    def delete(self, key: str) -> None:
        try:
            self.client.delete_object(Bucket=self.bucket, Key=key)
        except (ClientError, BotoCoreError) as error:
            raise self.translate(error, key) from error

    def translate(self, error: Exception, key: str) -> StorageError:
        """What boto raised, as one of ours."""
        where = f"s3://{self.bucket}/{key}"
        if isinstance(error, ConnectionError | HTTPClientError):
            return StorageError(
                f"object storage cannot be reached for {where}: {error}; is it up, and LABELLOOP_S3_ENDPOINT right?"
            )
        if isinstance(error, ParamValidationError):
            return StorageError(f"{where} can be no object: {str(error).splitlines()[-1].partition(': ')[0]}")
        code = error.response["Error"].get("Code", "") if isinstance(error, ClientError) else ""
        if code == "NoSuchBucket":
            return NotFoundError(f"there is no bucket {self.bucket}: `labelloop init` makes it, or correct its name "
                                 "(LABELLOOP_STATE_BUCKET, LABELLOOP_IMAGE_BUCKETS)")  # fmt: skip
        if code in {"NoSuchKey", "404", "NotFound"}:
            return NotFoundError(f"{where} does not exist")
        if code in {"PreconditionFailed", "412", "ConditionalRequestConflict"}:
            return AlreadyExistsError(f"{where} was written by somebody else")
        return StorageError(f"{where}: {error}; check the S3 endpoint, the credentials and the bucket's policy")


def _bounded(key: str, body: StreamingBody, size: int) -> bytes:
    """CorruptObjectError where a record is too large to be one: its bytes are not fetched."""
    most = most_of(key)
    if most is not None and size > most:
        body.close()
        raise CorruptObjectError(key, too_large(size))
    return body.read()


class MemoryStore:
    """The fake: same contract, same errors, kept in a dict."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, datetime]] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes:
        return self.get_with_etag(key)[0]

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        try:
            data = self._objects[key][0]
        except KeyError as error:
            raise NotFoundError(f"{key} does not exist") from error
        if (most := most_of(key)) is not None and len(data) > most:
            raise CorruptObjectError(key, too_large(len(data)))
        return data, digest(data)[:32]

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        with self._lock:
            if if_absent and key in self._objects:
                raise AlreadyExistsError(f"{key} exists already")
            self._objects[key] = (bytes(data), datetime.now(UTC))

    def swap(self, key: str, data: bytes, *, etag: str) -> None:
        with self._lock:
            if self.get_with_etag(key)[1] != etag:
                raise AlreadyExistsError(f"{key} was written by somebody else")
            self._objects[key] = (bytes(data), datetime.now(UTC))

    def exists(self, key: str) -> bool:
        return key in self._objects

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        for key in sorted(k for k in list(self._objects) if k.startswith(prefix) and k > start_after):
            data, modified = self._objects[key]
            yield ObjectInfo(key, len(data), digest(data)[:32], modified)

    def delete(self, key: str) -> None:
        self._objects.pop(key, None)


class Within:
    """Another store under a prefix: what one project sees."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store = store
        self.prefix = prefix.rstrip("/") + "/"

    def get(self, key: str) -> bytes:
        return self.get_with_etag(key)[0]

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        try:
            return self._store.get_with_etag(self.prefix + key)
        except CorruptObjectError as error:
            raise CorruptObjectError(key, error.reason) from error

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        self._store.put(self.prefix + key, data, if_absent=if_absent)

    def swap(self, key: str, data: bytes, *, etag: str) -> None:
        self._store.swap(self.prefix + key, data, etag=etag)

    def exists(self, key: str) -> bool:
        return self._store.exists(self.prefix + key)

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        after = self.prefix + start_after if start_after else ""
        for info in self._store.list(self.prefix + prefix, start_after=after):
            yield ObjectInfo(info.key.removeprefix(self.prefix), info.size, info.etag, info.modified)

    def delete(self, key: str) -> None:
        self._store.delete(self.prefix + key)
