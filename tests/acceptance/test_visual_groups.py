"""Pictures that look alike, on a real stack: frames of a camera all count; groups and a test set of people hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest
import yaml

from labelloop.config.key_groups import name_of
from labelloop.records.images import ImageFacts, Split
from labelloop.records.json import digest
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
    assert {key for key, one in placed.items() if one.bucket is Split.TEST} == {
        k for k in images if k.startswith("test/")
    }


@pytest.mark.long(seconds=60)
def test_fields_of_tasks_name_groups_and_a_project_that_exists_is_grouped_again(loop: Loop) -> None:
    """24 images of six patients, grouped by what they show; then people say what they know of them."""
    images = {f"{i:02d}.png": png(scene(1000 + i)) for i in range(24)}
    said: dict[str, dict[str, object]] = {
        name: {"patient": 7.0 if i < 4 else str(i // 4), "split": "test" if i < 8 else ["no", "name"]}
        for i, name in enumerate(images)
    }
    del said["23.png"]["patient"]
    said["22.png"]["patient"] = {"any": "JSON"}
    spec = {"backbone": {"name": "pixels"}, "buckets": {"test": 0.0, "audit": 0.0}}
    with project(loop, "fields", images, "ill,well", **spec) as record:
        until(lambda: len(facts(loop, record)) == len(images), 120, "a bucket for every image")
        before = facts(loop, record)
        for stubs in loop.studio.all_tasks(record.id, record.schema):
            for stub in stubs:
                data = {"image": stub.uri, **said[PurePosixPath(stub.uri).name]}
                loop.studio.http.call("PATCH", f"api/tasks/{stub.id}/", json={"data": data})
        path = Path(loop.home) / "fields.yaml"
        path.write_text(yaml.safe_dump({
            "name": "fields", **spec,
            "buckets": {"test": 0.1, "audit": 0.0, "group_by": "field:patient", "test_set": "field:split=test"},
        }))  # fmt: skip
        labelloop("init", "--project", record.id, "--config", path, "--image-uri", record.image_uri,
                  "--state-dir", loop.home)  # fmt: skip
        labelloop("sync", "--drain", "--project", record.key, "--state-dir", loop.home)
        assert facts(loop, record) == before  # what is decided stays
        regrouped = labelloop("duplicates", "--regroup", "--project", record.key, "--state-dir", loop.home)
        assert "24 images of 24 groups are decided again" in regrouped
        until(lambda: facts(loop, record).keys() == images.keys(), 60, "a new decision on every image")
        after = facts(loop, record)
    names = {name: name_of("7" if i < 4 else str(i // 4)) for i, name in enumerate(list(images)[:22])}
    assert {name: after[name].group for name in names} == {
        name: digest(f"test set:{group}".encode()) if name < "08.png" else group for name, group in names.items()
    }
    assert [after[name].group for name in ("22.png", "23.png")] == [before[n].group for n in ("22.png", "23.png")]
    assert {name for name, one in after.items() if one.bucket is Split.TEST} == {n for n in images if n < "08.png"}
