from __future__ import annotations

import io
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from botocore.response import StreamingBody

from labelloop.config.settings import load_settings
from labelloop.decoding.budget import Budget
from labelloop.errors import DecodersBusyError, ImageUnreadableError, StorageError
from labelloop.images import reader as images_module
from labelloop.images.reader import ImageReader, allowed, image_reader, list_images
from labelloop.objects.s3_client import s3_client


class FakeS3:
    """The one call that the reader makes."""

    def __init__(self, answer: bytes | Exception, size: int | None = None) -> None:
        self.answer, self.size = answer, size
        self.asked: list[tuple[str, str]] = []

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        self.asked.append((Bucket, Key))
        if isinstance(self.answer, Exception):
            raise self.answer
        size = len(self.answer) if self.size is None else self.size
        return {
            "Body": StreamingBody(io.BytesIO(self.answer), len(self.answer)),
            "ContentLength": size,
            "ETag": '"abc"',
        }


def reader(answer: bytes | Exception, size: int | None = None) -> tuple[ImageReader, FakeS3]:
    fake = FakeS3(answer, size)
    return ImageReader(fake, ["images"], max_bytes=1000), fake  # type: ignore[arg-type]


def refusal(code: str, status: int) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "GetObject",
    )


def test_reads_bytes_and_etag_of_keys_with_any_character() -> None:
    images, fake = reader(b"bytes")
    assert images.read("s3://images/a b/ü?c#d%20.png") == (b"bytes", "abc")
    assert fake.asked == [("images", "a b/ü?c#d%20.png")]


@pytest.mark.parametrize(
    "uri",
    [
        "http://169.254.169.254/latest/meta-data", "file:///etc/passwd", "/data/upload/1.png", "", "s3://", "s3:///k",
        "s3://other/a.png", "s3://images", "s3://images/", "S3://images/a", "s3://images@evil/a", "s3://labelloop/x",
    ],
)  # fmt: skip
def test_nothing_outside_the_allow_list_is_asked_for(uri: str) -> None:
    images, fake = reader(b"bytes")
    with pytest.raises(ImageUnreadableError):
        images.read(uri)
    assert fake.asked == []


def test_a_refusal_says_which_uri_why_and_what_to_do() -> None:
    with pytest.raises(ImageUnreadableError, match=r"s3://other/a\.png.*'other'.*LABELLOOP_IMAGE_BUCKETS"):
        allowed("s3://other/a.png", {"images"})


def test_a_long_or_signed_address_is_cut_short_in_messages() -> None:
    with pytest.raises(ImageUnreadableError) as caught:
        allowed("https://host/a.png?X-Amz-Signature=secret", {"images"})
    assert "secret" not in str(caught.value)
    with pytest.raises(ImageUnreadableError) as caught:
        allowed("data:image/png;base64," + "A" * 10_000, {"images"})
    assert len(str(caught.value)) < 500


def test_an_object_above_the_limit_is_refused_before_it_is_read() -> None:
    images, _ = reader(b"", size=1001)
    with pytest.raises(ImageUnreadableError, match="1,001 bytes"):
        images.read("s3://images/a.png")


@pytest.mark.parametrize(("code", "status"), [("NoSuchKey", 404), ("AccessDenied", 403), ("InvalidArgument", 400)])
def test_what_a_retry_cannot_mend_is_this_image_alone(code: str, status: int) -> None:
    images, _ = reader(refusal(code, status))
    with pytest.raises(ImageUnreadableError, match=r"s3://images/a\.png"):
        images.read("s3://images/a.png")


@pytest.mark.parametrize(
    "error",
    [
        refusal("InternalError", 500),
        refusal("SlowDown", 503),
        refusal("RequestTimeout", 408),
        EndpointConnectionError(endpoint_url="http://s3"),
        ReadTimeoutError(endpoint_url="http://s3"),
    ],
)
def test_what_a_retry_may_mend_is_a_storage_error(error: Exception) -> None:
    images, _ = reader(error)
    with pytest.raises(StorageError):
        images.read("s3://images/a.png")


def test_the_client_has_time_outs_and_a_pool() -> None:
    settings = load_settings(
        {
            "LABELLOOP_S3_ENDPOINT": "http://127.0.0.1:1",
            "LABELLOOP_S3_ACCESS_KEY": "k",
            "LABELLOOP_S3_SECRET_KEY": "s",
        }
    )
    client = s3_client(settings)
    config: Any = client.meta.config
    assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (3, 20, 32)
    assert image_reader(settings, client)._buckets == {"images"}
    with pytest.raises(StorageError):
        image_reader(settings, client).read("s3://images/a.png")


def test_listing_keeps_what_looks_like_an_image() -> None:
    class Paginator:
        def paginate(self, **params: Any) -> list[dict[str, Any]]:
            assert (params["Bucket"], params["Prefix"]) == ("images", "digits/")
            keys = ["digits/a.png", "digits/b.JPG", "digits/c.avif", "digits/readme.txt", "digits/"]
            return [{"Contents": [{"Key": k, "Size": 1, "ETag": '"e"', "LastModified": None} for k in keys]}]

    class Client:
        def get_paginator(self, _name: str) -> Paginator:
            return Paginator()

    listed = list(list_images(Client(), "s3://images/digits/"))  # type: ignore[arg-type]
    assert listed == [
        ("s3://images/digits/a.png", "e"),
        ("s3://images/digits/b.JPG", "e"),
        ("s3://images/digits/c.avif", "e"),
    ]


def test_bytes_that_arrive_at_once_are_bounded() -> None:
    images, _ = reader(b"x" * 900)
    images._arriving = Budget(1000, large=1000, small=0)
    with images._arriving.hold(200, 0):
        images_module.ARRIVING_S, before = 0.05, images_module.ARRIVING_S
        try:
            with pytest.raises(DecodersBusyError):
                images.read("s3://images/a.png")
        finally:
            images_module.ARRIVING_S = before
    assert images.read("s3://images/a.png")[0] == b"x" * 900
