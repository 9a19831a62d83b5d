"""Which objects and files are images: one rule for names, and first bytes where a name has no ending."""

from __future__ import annotations

import io
import re
from collections.abc import Set
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.response import StreamingBody
from PIL import Image

from labelloop.config.project import ProjectConfig
from labelloop.decoding.endings import (
    HEAD,
    HEIC,
    IS_HEIC,
    NO_ENDING,
    NO_FORMAT,
    SUFFIXES,
    ending_of,
    no_format,
    no_image,
)
from labelloop.errors import StorageError
from labelloop.images.first_bytes import UNREAD, FirstBytes
from labelloop.images.reader import ImageListing, LeftOut
from labelloop.labels.label_config import make_label_config
from labelloop.objects.storage import ObjectInfo
from labelloop.store.projects import ProjectRecord
from operations.projects.imagefolder import left_out, scan
from operations.source import IMAGE_PATTERN
from sync.images.imports import IMPORTED, import_new

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
RECORD = ProjectRecord("main", 1, 0, "t", ProjectConfig(), make_label_config(("cat", "dog")), "s3://images/p/",
                       storage_id=7, by_bytes=True)  # fmt: skip


def encoded(form: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(out, form)
    return out.getvalue()


class Bucket:
    """Objects, and how often each was read."""

    def __init__(self, objects: dict[str, bytes | Exception]) -> None:
        self.objects, self.reads = objects, list[str]()

    def infos(self, etag: str = "e") -> list[ObjectInfo]:
        sizes = {key: 9 if isinstance(data, Exception) else len(data) for key, data in self.objects.items()}
        return [ObjectInfo(key, size, etag, MOMENT) for key, size in sizes.items()]

    def get_object(self, Bucket: str, Key: str, Range: str) -> dict[str, Any]:
        self.reads.append(Key)
        data = self.objects[Key]
        if isinstance(data, Exception):
            raise data
        assert Range == f"bytes=0-{HEAD - 1}"
        head = data[:HEAD]
        return {"Body": StreamingBody(io.BytesIO(head), len(head))}


def refused(status: int) -> ClientError:
    answer: Any = {"Error": {"Code": "x"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "GetObject")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_every_format_that_is_read_is_known_by_its_first_bytes(form: str) -> None:
    assert no_format(encoded(form)[:HEAD]) is None


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", IS_HEIC),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", IS_HEIC),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", None),
        (b"BMW, Audi, Opel: a list of makes of cars", NO_FORMAT),
        (b"II*", NO_FORMAT),
        (b"", NO_FORMAT),
        (b"%PDF-1.7", NO_FORMAT),
        (b"<svg xmlns=", NO_FORMAT),
    ],
)
def test_first_bytes_of_others(head: bytes, why: str | None) -> None:
    assert no_format(head) == why


def test_a_name_says_why_it_is_no_image() -> None:
    assert [no_image(f"p/x{ending.upper()}") for ending in SUFFIXES] == [None] * len(SUFFIXES)
    assert {no_image(f"IMG_1{ending}") for ending in HEIC} == {IS_HEIC}
    assert no_image("p.d/0a1cce8ea0954bd7a76e4f254aa9e39b") == NO_ENDING
    assert no_image("p/x.csv") == "its name ends in .csv"
    assert [ending_of(n) for n in ("a.b/c", "a.B", ".x", "")] == ["", ".b", ".x", ""]


def test_the_storages_filter_and_folders_go_by_the_same_list(tmp_path: Path) -> None:
    for name in ("a.jfif", "b.JPE", "c.avif", "d.heic", "e.txt"):
        (tmp_path / name).write_bytes(encoded("JPEG"))
    (tmp_path / "0a1cce8e").write_bytes(encoded("PNG"))
    (tmp_path / "README").write_bytes(b"no image")
    (tmp_path / ".DS_Store").write_bytes(b"no image")
    taken = [f.path.name for f in scan(tmp_path, "p/", classes=("cat", "dog"))]
    assert taken == ["0a1cce8e", "a.jfif", "b.JPE", "c.avif"]
    assert [n for n in taken if re.match(IMAGE_PATTERN, n)] == taken[1:]
    assert left_out(tmp_path) == {
        IS_HEIC: LeftOut(1, "d.heic"),
        "its name ends in .txt": LeftOut(1, "e.txt"),
        NO_FORMAT: LeftOut(1, "README"),
    }


def test_a_listing_judges_names_without_an_ending_once_for_each_of_their_etags() -> None:
    objects: dict[str, bytes | Exception] = {
        "p/": b"", "p/a.jpe": b"", "p/hash": encoded("JPEG"), "p/notes": b"text", "p/empty": b"",
        "p/secret": refused(403), "p/phone": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    }  # fmt: skip
    bucket = Bucket(objects)
    first_bytes = FirstBytes(bucket, "images")  # type: ignore[arg-type]
    listing = ImageListing(bucket.infos(), "images", first_bytes)
    assert list(listing) == [("s3://images/p/a.jpe", "e"), ("s3://images/p/hash", "e")]
    assert {why: n.count for why, n in listing.left_out.items()} == {NO_FORMAT: 2, UNREAD: 1, IS_HEIC: 1}
    bucket.reads.clear()
    assert len(list(ImageListing(bucket.infos(), "images", first_bytes))) == 2
    assert bucket.reads == ["p/secret"]  # that may have been allowed meanwhile
    bucket.objects["p/notes"] = encoded("PNG")
    assert len(list(ImageListing(bucket.infos("other"), "images", first_bytes))) == 3


def test_a_project_of_before_takes_what_it_took() -> None:
    bucket = Bucket({"p/a.jfif": b"", "p/b.png": b"", "p/hash": encoded("JPEG")})
    listing = ImageListing(bucket.infos(), "images")
    assert list(listing) == [("s3://images/p/b.png", "e")]
    assert set(listing.left_out) == {"its name ends in .jfif", NO_ENDING}
    assert bucket.reads == []


def test_a_store_that_is_away_is_no_judgement() -> None:
    for error in (refused(503), EndpointConnectionError(endpoint_url="http://s3")):
        bucket = Bucket({"p/a": error})
        with pytest.raises(StorageError):
            list(ImageListing(bucket.infos(), "images", FirstBytes(bucket, "images")))  # type: ignore[arg-type]


class Studio:
    """What was asked of Label Studio."""

    def __init__(self) -> None:
        self.syncs, self.imported = 0, list[list[str]]()

    def sync_storage(self, _storage: int) -> bool:
        self.syncs += 1
        return True

    def import_tasks(self, _project: int, rows: list[dict[str, dict[str, str]]]) -> int:
        self.imported.append([row["data"]["image"] for row in rows])
        return len(rows)


def after_import(record: ProjectRecord, new: Set[str]) -> Studio:
    studio = Studio()
    assert import_new(studio, record, new) is True  # type: ignore[arg-type]
    return studio


def test_images_without_an_ending_are_imported_and_a_storage_sync_is_for_the_others() -> None:
    named, nameless = "s3://images/p/a.png", {f"s3://images/p/{i:04d}" for i in range(IMPORTED + 1)}
    both = after_import(RECORD, {named} | nameless)
    assert (both.syncs, [len(part) for part in both.imported]) == (1, [IMPORTED, 1])
    assert after_import(RECORD, nameless).syncs == 0
    assert after_import(RECORD, {named}).imported == []
    for record in (replace(RECORD, by_bytes=False), replace(RECORD, storage_id=None)):
        assert after_import(record, nameless).imported == []
