"""Pictures that look alike, on a real stack: frames of a camera all count; groups and a test set of people hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest
import yaml

from labelloop.records.images import Bucket, ImageFacts
from labelloop.store.catalogue import Catalogue
from labelloop.store.projects import ProjectRecord
from tests.acceptance.conftest import Loop, labelloop, until
from tests.unit.likeness.test_near import png, scene
from tests.unit.worker.test_settle import frames

FRAMES, LABELS = 160, 60


@contextmanager
def project(
    loop: Loop, name: str, images: Mapping[str, bytes], classes: str, **config: object
) -> Iterator[ProjectRecord]:
    """A project whose images were put into the bucket by somebody else. It is gone afterwards."""
    bucket = loop.deployment.settings.image_buckets[0]
    for key, data in images.items():
        loop.deployment.s3.put_object(Bucket=bucket, Key=f"{name}/{key}", Body=data)
    path = Path(loop.home) / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": name, **config}))
    uri = f"s3://{bucket}/{name}/"
    labelloop("init", "--config", path, "--image-uri", uri, "--classes", classes, "--state-dir", loop.home)
    record = next(r for r in loop.deployment.projects.all() if r.image_uri == uri)
    try:
        yield record
    finally:
        labelloop("forget", record.key, "--state-dir", loop.home)
        loop.studio.http.call("DELETE", f"api/projects/{record.id}/")


def facts(loop: Loop, record: ProjectRecord) -> dict[str, ImageFacts]:
    """What is decided, by the end of the address."""
    catalogue = Catalogue(loop.deployment.within(record))
    catalogue.update()
    start = len(record.image_uri)
    return {uri[start:]: one for uri, one in catalogue.images.items() if one.group}


@pytest.mark.long(seconds=120)
def test_sixty_labels_of_a_fixed_camera_bring_a_model(loop: Loop) -> None:
    taken = {PurePosixPath(uri).name: frame for uri, frame in frames(FRAMES).items()}
    images = {name: data for name, (data, _) in taken.items()}
    with project(loop, "camera", images, "good,defect") as record:
        until(lambda: len(facts(loop, record)) == FRAMES, 300, "a bucket for every frame")
        assert len({one.twins for one in facts(loop, record).values()}) > 0.9 * FRAMES
        for _ in range(LABELS):
            until(lambda: loop.studio.next_task(record.id, record.schema) is not None, what="a task")
            task = loop.studio.next_task(record.id, record.schema)
            assert task is not None
            loop.studio.annotate(task.id, record.schema.result(taken[PurePosixPath(task.uri).name][1]))
        until(lambda: loop.deployment.registry(record).live() is not None, what="a live model")


@pytest.mark.long(seconds=60)
def test_patients_stand_together_and_an_own_test_set_is_the_test_bucket(loop: Loop) -> None:
    images = {
        f"{'test' if p % 4 == 0 else 'rest'}/p{p:02d}/{i}.png": png(scene(10 * p + i))
        for p in range(12)
        for i in range(3)
    }
    buckets = {"test": 0.1, "audit": 0.2, "group_by": "{group}/*", "test_set": "test/"}
    with project(loop, "patients", images, "ill,well", backbone={"name": "pixels"}, buckets=buckets) as record:
        until(lambda: len(facts(loop, record)) == len(images), 120, "a bucket for every image")
        placed = facts(loop, record)
    patients = {(PurePosixPath(key).parts[1], one.group, one.bucket) for key, one in placed.items()}
    assert len(patients) == len({one.group for one in placed.values()}) == 12
    assert {key for key, one in placed.items() if one.bucket is Bucket.TEST} == {
        k for k in images if k.startswith("test/")
    }
