"""An image uploaded in Label Studio: copied, featurised, pre-labelled, labelled, and in the snapshot."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from labelloop.images.mirror import Mirror
from labelloop.records.images import Split
from labelloop.records.json import digest
from labelloop.rules.split import group_of, split_of
from labelloop.store.features import FeatureIndex
from labelloop.store.snapshots import SnapshotStore
from tests.acceptance.conftest import Loop, labelloop, until


def drawing(loop: Loop) -> bytes:
    """A picture of the train bucket, so that it may be shown with a pre-label."""
    shares = loop.project.config.buckets.shares()
    for seed in range(1000):
        pixels = np.random.default_rng(seed).integers(0, 255, (40, 40), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        if split_of(group_of(out.getvalue()), shares) is Split.TRAIN:
            return out.getvalue()
    raise AssertionError("no such picture")


def uploads(loop: Loop) -> dict[str, int]:
    """Address -> task, of what does not lie in S3."""
    stubs = (s for page in loop.studio.all_tasks(loop.project.id, loop.schema) for s in page)
    return {s.uri: s.id for s in stubs if s.uri.startswith("/data/upload/")}


def imported(loop: Loop, data: bytes) -> bool:
    """Import as the web page does; False where SQLite was locked for too long: a person would press again."""
    settings = loop.deployment.settings
    answer = httpx.post(
        f"{settings.studio_url}/api/projects/{loop.project.id}/import",
        headers={"Authorization": f"Token {settings.studio_token}"},
        files={"file": ("a drawing.png", data, "image/png")}, timeout=60,
    )  # fmt: skip
    assert answer.status_code in {201, 500}, answer.text
    return answer.status_code == 201


@pytest.fixture
def uploaded(loop: Loop) -> Iterator[tuple[str, int, bytes]]:
    """(address, task, bytes); the task goes afterwards."""
    data, before = drawing(loop), uploads(loop)
    until(lambda: imported(loop, data), 120, "the import")
    ((uri, task),) = uploads(loop).items() - before.items()
    yield uri, task, data
    loop.studio.delete_task(task)


def predicted(loop: Loop, task: int) -> dict[str, Any]:
    """What the backend says of a task when Label Studio asks it."""
    record, settings = loop.project, loop.deployment.settings
    (uri,) = (u for u, t in uploads(loop).items() if t == task)
    body = {"project": record.reference, "label_config": record.label_config,
            "tasks": [{"id": task, "data": {"image": uri}}]}  # fmt: skip
    auth = (settings.backend_user, settings.backend_password or "")
    answer = httpx.post(f"{settings.backend_url}/predict", json=body, auth=auth, timeout=100).raise_for_status()
    found: dict[str, Any] = answer.json()["results"][0]
    return found


@pytest.mark.long(seconds=90)
def test_an_upload_is_learned_like_any_image(loop: Loop, uploaded: tuple[str, int, bytes]) -> None:
    uri, task, data = uploaded
    store = loop.deployment.within(loop.project)
    early = predicted(loop, task)
    assert (early["result"], early["score"]) == ([], 1.0) or early["result"]  # empty until it is copied, never an error

    mirror = Mirror(store)
    until(lambda: mirror.find(uri), 60, "the copy")
    assert mirror.read(uri) == (data, digest(data))
    backbone = loop.deployment.registry(loop.project).current_backbone()
    assert backbone is not None
    index = FeatureIndex(store, backbone.id)

    def featurised() -> bool:
        index.update()
        return uri in index

    until(featurised, 90, "its features")
    until(lambda: predicted(loop, task)["result"], 30, "a pre-label")
    until(lambda: loop.picture().copies.get("copied", 0) >= 1, 30, "its place in the status")

    label = loop.schema.classes[3]
    loop.studio.annotate(task, loop.schema.result(label), lead_time_s=1.0)
    labelloop("sync", "--drain", "--project", "digits", "--state-dir", loop.home)
    snapshots = SnapshotStore(store)
    latest = snapshots.latest()
    assert latest is not None
    assert snapshots.load(latest.snapshot).labels()[uri] == label
