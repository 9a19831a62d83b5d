"""A project that exists is grouped again by what its tasks say: watcher, workers and command on a real S3 server.

Label Studio is the fake that the contract tests hold to the real one; jobs run in this process, as they were queued.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from labelloop.config.key_groups import name_of
from labelloop.config.project import parse_config
from labelloop.config.settings import load_settings
from labelloop.images.reader import ImageReader
from labelloop.labels.results import make_label_config
from labelloop.objects.s3_client import s3_client
from labelloop.objects.storage import S3Store
from labelloop.queue.connection import connect
from labelloop.queue.jobs import FEATURISE, JobKind, JobQueue
from labelloop.records.images import ImageFacts, Split
from labelloop.records.json import digest
from labelloop.store.catalogue import Catalogue
from labelloop.store.projects import ProjectRecord, ProjectStore
from operations.data.regroup import regroup
from operations.deployment import Deployment
from retrain_worker.context import Context
from retrain_worker.featurise import featurise
from sync.project import Deps, ProjectWatch
from tests.fakes.studio import FakeStudio
from tests.integration.conftest import KEYS
from tests.unit.likeness.test_near import png, scene

IMAGES = 24
SPEC: Mapping[str, Any] = {"backbone": {"name": "pixels"}, "buckets": {"test": 0.0, "audit": 0.0}}
BY_FIELD = {"test": 0.0, "audit": 0.0, "group_by": "field:patient", "test_set": "field:split=test"}


@dataclass
class Jobs:
    """What was queued and not done yet."""

    redis: Any
    waiting: dict[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)

    def enqueue(self, kind: JobKind, job: str, payload: Mapping[str, Any], **_: Any) -> bool:
        return self.waiting.setdefault(job, (kind.name, payload))[1] is payload

    def active(self, kind: JobKind, _project: str) -> list[str]:
        return [job for job, (name, _) in self.waiting.items() if name == kind.name]

    def at_work(self, _kind: JobKind, _project: str) -> set[str]:
        return set()


@dataclass
class Scene:
    deployment: Deployment
    record: ProjectRecord
    studio: FakeStudio
    context: Context
    jobs: Jobs
    uris: list[str]
    watch: ProjectWatch = field(init=False)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A watcher that has just begun, or found another config."""
        listing = [(uri, "") for uri in self.uris]
        deps = Deps(self.studio, self.deployment.store, self.deployment.projects, self.jobs, lambda _: lambda: listing)  # type: ignore[arg-type]
        self.watch = ProjectWatch(self.record, deps)

    def configure(self, **buckets: Any) -> None:
        config = parse_config({**SPEC, "buckets": buckets}, "the test")
        self.record = replace(self.record, config=config)
        self.deployment.projects.put(self.record)
        self.begin()

    def turn(self) -> None:
        """The watcher looks, then the workers do what it has queued."""
        self.watch.turn(nudged=True)
        for name, payload in list(self.jobs.waiting.values()):
            if name == FEATURISE.name:
                featurise(self.context, self.context.project(self.record.key), payload["uris"], payload.get("pool"))
        self.jobs.waiting.clear()

    def facts(self) -> dict[str, ImageFacts]:
        catalogue = Catalogue(self.deployment.within(self.record))
        catalogue.update()
        return {uri: one for uri, one in catalogue.images.items() if one.group}

    def decided(self) -> dict[str, ImageFacts]:
        """When every image is placed."""
        end = time.monotonic() + 30
        while len(self.facts()) < len(self.uris):
            assert time.monotonic() < end, f"{len(self.facts())} of {len(self.uris)} images have a bucket"
            self.turn()
            time.sleep(0.05)
        return self.facts()


@pytest.fixture
def scene_of_24(s3_endpoint: str, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr("sync.images.pool.DECIDE_AFTER_S", 0.2)
    state, images = (f"test-{secrets.token_hex(4)}" for _ in range(2))
    settings = load_settings({
        "LABELLOOP_S3_ENDPOINT": s3_endpoint, **KEYS, "LABELLOOP_STATE_BUCKET": state,
        "LABELLOOP_IMAGE_BUCKETS": images, "LABELLOOP_REDIS_URL": valkey_url,
        "LABELLOOP_CACHE_DIR": str(tmp_path / "cache"),
    })  # fmt: skip
    s3, redis = s3_client(settings), connect(valkey_url)
    for bucket in (state, images):
        s3.create_bucket(Bucket=bucket)
    uris = [f"s3://{images}/p/{i:02d}.png" for i in range(IMAGES)]
    for i, uri in enumerate(uris):
        s3.put_object(Bucket=images, Key=uri.split("/", 3)[3], Body=png(scene(1000 + i)))
    store = S3Store(s3, state)
    projects = ProjectStore(store, settings.studio_server)
    key = secrets.randbelow(10**6) + 1
    record = ProjectRecord("main", key, 0, "fake", parse_config(SPEC, "t"), make_label_config(["ill", "well"]),
                           f"s3://{images}/p/")  # fmt: skip
    projects.put(record)
    studio = FakeStudio(record.schema)
    deployment = Deployment(settings, s3, store, JobQueue(redis), projects)
    context = Context(settings, redis, store, ImageReader(s3, settings.image_buckets))
    return Scene(deployment, record, studio, context, Jobs(redis), uris)


def said(number: int) -> dict[str, object]:
    """Six patients; the first two are the test set. Of the last two images the tasks name no patient."""
    patient: object = {22: {"any": "JSON"}, 23: None, 1: 0.0}.get(number, str(number // 4))
    return {"patient": patient, "split": "test" if number < 8 else ["no", "name"]}


def test_a_project_is_grouped_again_by_what_its_tasks_say(scene_of_24: Scene) -> None:
    scene = scene_of_24
    tasks = [scene.studio.add_task(uri) for uri in scene.uris]
    before = scene.decided()
    assert len({one.group for one in before.values()}) == IMAGES
    assert {one.bucket for one in before.values()} == {Split.TRAIN}
    for number, task in enumerate(tasks):
        scene.studio.change_data(task, said(number))
    scene.configure(**BY_FIELD)
    for _ in range(3):
        scene.turn()
    assert scene.facts() == before  # what is decided stays
    done = regroup(scene.deployment, scene.record)
    assert (done.images, done.groups, done.kept) == (IMAGES, IMAGES, 0)
    after = scene.decided()
    names = [name_of(str(number // 4)) for number in range(22)]
    expected = [digest(f"test set:{name}".encode()) if i < 8 else name for i, name in enumerate(names)]
    assert [after[uri].group for uri in scene.uris[:22]] == expected
    assert [after[uri].group for uri in scene.uris[22:]] == [before[uri].group for uri in scene.uris[22:]]
    assert [uri for uri, one in sorted(after.items()) if one.bucket is Split.TEST] == scene.uris[:8]
    assert {uri: one.twins for uri, one in after.items()} == {uri: one.twins for uri, one in before.items()}
    scene.begin()
    scene.turn()
    assert scene.facts() == after


def test_images_that_come_before_their_tasks_wait_for_them(scene_of_24: Scene) -> None:
    scene = scene_of_24
    scene.configure(**BY_FIELD)
    for number, uri in enumerate(scene.uris[:20]):
        scene.studio.add_task(uri, said(number))
    end = time.monotonic() + 20
    while len(scene.facts()) < 20 and time.monotonic() < end:
        scene.turn()
    for _ in range(5):
        scene.turn()
        time.sleep(0.1)
    assert sorted(scene.facts()) == scene.uris[:20]
    for number, uri in enumerate(scene.uris[20:], 20):
        scene.studio.add_task(uri, said(number))
    after = scene.decided()
    assert {after[uri].group for uri in scene.uris[20:22]} == {name_of("5")}
