"""The first five minutes: a folder with odd names becomes a project, a second person joins by the printed line."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelloop.decoding.endings import IS_HEIC, NO_FORMAT
from labelloop.store.projects import ProjectRecord
from operations.simulation.accounts import sign_up
from operations.status import StatusReader
from tests.acceptance.conftest import Loop, labelloop, until

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
FORMS = {
    "2024/photo 1.jfif": "JPEG", "2024/photo 2.jpe": "JPEG", "2024/#3 50%.png": "PNG", "2025/é+ü.webp": "WEBP",
    "2025/5.AVIF": "AVIF", "2025/0a1cce8ea0954bd7": "JPEG", "2025/1b2ddf9fb1a65ce8": "PNG", "2025/why?.png": "PNG",
}  # fmt: skip
CLASSES = ("even", "odd")


@dataclass(frozen=True)
class First:
    """What `init` has made of the folder, and what it printed."""

    folder: Path
    output: str
    record: ProjectRecord


def picture(number: int, form: str) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, form)
    return out.getvalue()


@pytest.fixture
def first(loop: Loop, tmp_path: Path) -> Iterator[First]:
    folder = tmp_path / "odd names"
    for number, (name, form) in enumerate(FORMS.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(number, form))
    (folder / "phone.heic").write_bytes(HEIC)
    (folder / "README").write_text("no image")
    rows = [f"{name},{CLASSES[i % 2]}" for i, name in enumerate(FORMS)]
    (folder / "labels.csv").write_text("\n".join(["file,label", *rows]))
    output = labelloop("init", "--images", folder, "--seed", "2", "--state-dir", loop.home)
    record = next(r for r in loop.deployment.projects.all() if r.title == folder.name)
    try:
        yield First(folder, output, record)
    finally:
        labelloop("forget", record.key, "--state-dir", loop.home)
        loop.studio.http.call("DELETE", f"api/projects/{record.id}/")


def tasks(loop: Loop, record: ProjectRecord) -> dict[str, list[int]]:
    """Key below the prefix -> its tasks."""
    found: dict[str, list[int]] = {}
    for page in loop.studio.all_tasks(record.id, record.schema):
        for stub in page:
            found.setdefault(stub.uri.removeprefix(record.image_uri), []).append(stub.id)
    return found


def left_out(loop: Loop, record: ProjectRecord) -> dict[str, int]:
    """Objects by reason, as `status` shows them."""
    (pool,) = (p.pool for p in StatusReader(loop.deployment).read().projects if p.key == record.key)
    return {why: found["count"] for why, found in (pool.get("left_out") or {}).items()}


def synced(loop: Loop, record: ProjectRecord) -> object:
    """When Label Studio's storage was synced last."""
    return loop.studio.http.call("GET", f"api/storages/s3/{record.storage_id}")["last_sync"]


@pytest.mark.long(seconds=75)
def test_a_folder_with_odd_names_is_labelled_and_joined_again(loop: Loop, first: First, tmp_path: Path) -> None:
    record, bucket = first.record, loop.deployment.settings.image_buckets[0]
    found = tasks(loop, record)
    assert {len(numbers) for numbers in found.values()} == {1}
    plain = {name for name in FORMS if "?" not in name}
    (changed,) = found.keys() - plain
    assert plain < found.keys()
    assert changed.startswith("2025/why_-")
    for key, (number,) in found.items():
        name = "2025/why?.png" if key == changed else key
        assert loop.studio.image(number, record.image_uri + key) == (first.folder / name).read_bytes()

    rows = loop.studio.http.call("GET", "api/tasks/", params={
        "project": record.id, "fields": "all", "include": "id,storage_filename", "page_size": 50})["tasks"]  # fmt: skip
    assert f"{first.folder.name}/2024/#3 50%.png" in {row["storage_filename"] for row in rows}  # a column for people

    before = synced(loop, record)
    prefix = record.image_uri.removeprefix(f"s3://{bucket}/")
    others = {"notes": b"text", "phone": HEIC, "table.csv": b"a,b", "late": picture(99, "JPEG")}
    for key, data in others.items():
        loop.deployment.s3.put_object(Bucket=bucket, Key=prefix + key, Body=data)
    until(lambda: "late" in tasks(loop, record), 40, "the task of an image without an ending")
    reasons = {NO_FORMAT: 1, IS_HEIC: 1, "its name ends in .csv": 1}
    until(lambda: left_out(loop, record) == reasons, 30, "what is left out, in the status")
    assert synced(loop, record) == before  # no filter of its storage could take any of these
    assert {len(numbers) for numbers in tasks(loop, record).values()} == {1}

    labelloop("export", "--format", "csv", "--out", tmp_path / "e.csv", "--drain", "--project", record.key,
              "--state-dir", loop.home)  # fmt: skip
    rows = {r["file"]: r["label"] for r in csv.DictReader(io.StringIO((tmp_path / "e.csv").read_text()))}
    assert len(rows) == 2  # the seeds
    assert rows.items() <= {name: CLASSES[i % 2] for i, name in enumerate(FORMS)}.items()


def test_what_to_open_press_and_hand_on_is_printed_and_true(loop: Loop) -> None:
    """Wiring a known project again changes nothing and ends with the same lines."""
    uri = loop.project.image_uri
    output = labelloop("init", "--image-uri", uri, "--config", loop.home / "digits.yaml", "--state-dir", loop.home)
    assert f"{loop.studio.url}/projects/{loop.project.id}/data" in output
    assert "Label All Tasks" in output
    link = re.search(r"Invite +(\S+)", output)
    assert link is not None
    second = sign_up(loop.studio.url, link[1], "second-person")
    try:
        assert second.whoami() == "second-person@example.com"
        assert second.next_task(loop.project.id, loop.schema) is not None
    finally:
        second.close()
