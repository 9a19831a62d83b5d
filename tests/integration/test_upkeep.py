"""Tidying, backup and restore on a real S3 server under real leases; Label Studio's answers are made up."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from labelloop.config.project import ProjectConfig, parse_config
from labelloop.config.settings import load_settings
from labelloop.errors import ConflictError, LabelloopError, SettingsError, StudioError
from labelloop.labels.results import make_label_config
from labelloop.objects.copies import copy_key
from labelloop.objects.s3_client import s3_client
from labelloop.objects.storage import S3Store
from labelloop.queue.connection import connect
from labelloop.queue.jobs import TIDY, JobQueue, job_id
from labelloop.store.features import FeatureStore
from labelloop.store.projects import COPY, ProjectRecord, ProjectStore
from labelloop.store.registry import Registry
from labelloop.store.runs import RunStore
from labelloop.store.snapshots import SnapshotStore
from labelloop.upkeep.tidying import Tidier, last_tidied
from operations.deployment import Deployment
from operations.upkeep.backup import BackedUp, BackupParts, backup
from operations.upkeep.gc import tidy
from operations.upkeep.restore import restore
from operations.upkeep.restored import Restored
from tests.fakes.studio_api import StudioApi, studio_of
from tests.integration.conftest import KEYS
from tests.unit.upkeep.test_tidying import check_whole
from tests.unit.worlds.tidy import World, project

URIS = [f"s3://images/{i}.png" for i in range(1, 8)]
ALL = BackupParts()
SECRET = "a-secret-that-nobody-may-see"


def silent(_what: str, _done: int, _of: int) -> None:
    return


@dataclass
class Scene:
    """A deployment whose Label Studio is made up, with one project that has a past."""

    deployment: Deployment
    api: StudioApi
    record: ProjectRecord
    world: World
    folder: Path

    def backup(self, parts: BackupParts = ALL, report: Callable[[str, int, int], None] = silent) -> BackedUp:
        return backup(self.deployment, self.record, self.folder / "b.tar", parts, report)

    def restore(self, *, title: str | None = None, force: bool = False) -> Restored:
        return restore(self.deployment, self.folder / "b.tar", title=title, force=force, report=silent)

    def objects(self, key: str | None = None) -> dict[str, bytes]:
        store = S3Store(self.deployment.s3, self.deployment.settings.state_bucket)
        prefix = f"projects/{key or self.record.key}/"
        return {info.key.removeprefix(prefix): store.get(info.key) for info in store.list(prefix)}


@pytest.fixture
def scene(s3_endpoint: str, valkey_url: str, tmp_path: Path) -> Scene:
    bucket = f"test-{secrets.token_hex(4)}"
    settings = load_settings({
        "LABELLOOP_S3_ENDPOINT": s3_endpoint, **KEYS,
        "LABELLOOP_STATE_BUCKET": bucket, "LABELLOOP_REDIS_URL": valkey_url, "LABELLOOP_STUDIO_TOKEN": SECRET,
        "LABELLOOP_BACKEND_PASSWORD": SECRET, "LABELLOOP_CACHE_DIR": str(tmp_path / "cache"),
    })  # fmt: skip
    s3 = s3_client(settings)
    s3.create_bucket(Bucket=bucket)
    store = S3Store(s3, bucket)
    projects = ProjectStore(store, settings.studio_server)
    deployment = Deployment(settings, s3, store, JobQueue(connect(valkey_url)), projects)
    api = StudioApi(images=URIS, users={1: "owner@example.com", 2: "anna@example.com"})
    vars(deployment)["studio"] = studio_of(api)
    record = wired(deployment, api)
    return Scene(deployment, api, record, project(deployment.within(record), tmp_path / "w"), tmp_path)


def wired(deployment: Deployment, api: StudioApi) -> ProjectRecord:
    """Seven images, six tasks (one was deleted), answers of every sort."""
    project = deployment.studio.create_project("pets", make_label_config(["cat", "dog"]))
    config = parse_config({"name": "pets", "retention": {"versions": 1, "days": 1, "log_days": 1}}, "the test")
    record = ProjectRecord("main", project.id, project.created, "pets", config, project.label_config, "s3://images/")
    deployment.projects.put(record)
    tasks = [api.task(project.id, {"image": uri}) for uri in URIS[:6]]
    cat, dog = record.schema.result("cat"), record.schema.result("dog")
    api.annotate(tasks[0], result=cat, lead_time=1.5, completed_by=2)
    api.annotate(tasks[0], result=dog, lead_time=2.5)
    api.annotate(tasks[1], result=[], was_cancelled=True, lead_time=0.5)
    api.annotate(tasks[2], result=cat, ground_truth=True)
    api.rows[tasks[3]]["data"]["note"] = "blurred"
    api.task(project.id, {"image": "s3://elsewhere/1.png"}, {"from": "hand"})
    deployment.within(record).put("deleted.json", json.dumps([URIS[6]]).encode())
    deployment.within(record).put("paused.json", b'{"by":"anna","at":"2030-01-01T00:00:00.000000Z"}')
    return record


# --- tidying


def test_tidying_leaves_a_project_that_works(scene: Scene) -> None:
    later = datetime.now(UTC) + timedelta(days=3)
    store = scene.deployment.within(scene.record)
    registry = scene.deployment.registry(scene.record)
    tidier = Tidier(store, registry, RunStore(store), scene.record.config.retention, now=lambda: later)
    planned = tidier.decide().remove
    removed = tidier.tidy()
    assert {item.key for item in removed} == {item.key for item in planned}
    assert [v.name for v in registry.versions()] == ["v3", "v4"]
    check_whole(store, scene.folder)
    assert last_tidied(store)


def test_gc_removes_nothing_young_and_a_dry_run_nothing_at_all(scene: Scene) -> None:
    before = scene.objects()
    tidied = tidy(scene.deployment, scene.record, silent, dry_run=True)
    assert tidied.removed == ()
    assert sum(heap.count for heap in tidied.kept) == len(before)
    assert scene.objects() == before
    tidy(scene.deployment, scene.record, silent, dry_run=False)
    assert scene.objects().keys() - before.keys() == {"gc.json"}


def test_versions_that_are_deployed_while_others_are_tidied_work(scene: Scene) -> None:
    """Two at once, for many rounds: whatever is live in the end can be loaded."""
    later, store = datetime.now(UTC) + timedelta(days=3), scene.deployment.within(scene.record)
    stop, refused = threading.Event(), []

    def promote() -> None:
        registry = scene.deployment.registry(scene.record)
        while not stop.is_set():
            for name in ("v1", "v2", "v3", "v4"):
                live = registry.live()
                try:
                    registry.deploy(name, expected=live and live.version, action="promote", by="t", why="")
                except LabelloopError as error:
                    refused.append(str(error))

    thread = threading.Thread(target=promote)
    thread.start()
    try:
        for _ in range(5):
            Tidier(store, scene.deployment.registry(scene.record), RunStore(store), scene.record.config.retention,
                   now=lambda: later).tidy()  # fmt: skip
    finally:
        stop.set()
        thread.join()
    assert all("no longer kept" in reason for reason in refused)
    check_whole(store, scene.folder)


def test_the_worker_tidies_and_clears_its_cache(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    from retrain_worker import tidy as module
    from retrain_worker.context import Context

    context = Context(scene.deployment.settings, scene.deployment.queue.redis, scene.deployment.store, None)  # type: ignore[arg-type]
    mine = context.project(scene.record.key)
    for backbone in ("b1", "b2"):
        mine.features(backbone).rows([URIS[0]])
    stale = mine.cache / "features" / "gone"
    stale.mkdir()
    assert module.tidy(mine) == {"removed": {}}
    assert sorted(p.name for p in (mine.cache / "features").iterdir()) == ["b1", "b2"]
    assert last_tidied(mine.store)


def test_the_job_is_known_by_name(scene: Scene) -> None:
    from retrain_worker import jobs

    assert TIDY.function == "retrain_worker.jobs.tidy"
    assert callable(jobs.tidy)
    queue, name = scene.deployment.queue, job_id(TIDY, scene.record.key, "daily")
    try:
        assert queue.enqueue(TIDY, name, {"project": scene.record.key})
        assert not queue.enqueue(TIDY, name, {"project": scene.record.key})
        assert queue.active(TIDY, scene.record.key) == [name]
    finally:
        queue.redis.flushdb()


# --- backup


def test_a_backup_holds_everything_but_the_moment(scene: Scene) -> None:
    scene.deployment.within(scene.record).put("requests/1.json", b"{}")
    done = scene.backup()
    assert (done.tasks, done.annotations, done.live, done.damaged) == (7, 4, "v4", [])
    before = scene.objects()
    for key in before:
        scene.deployment.within(scene.record).delete(key)
    scene.restore()
    beside = {"requests/1.json", "paused.json", copy_key(COPY)}  # the project's record stands beside in the archive
    assert scene.objects() == {k: v for k, v in before.items() if k not in beside}


def test_no_secret_is_in_it(scene: Scene) -> None:
    scene.backup()
    assert SECRET.encode() not in (scene.folder / "b.tar").read_bytes()


def test_a_backup_while_the_loop_goes_on_is_whole(scene: Scene) -> None:
    """New labels, versions and deploys between any two steps."""
    world = scene.world

    def work(_what: str, _done: int, _of: int) -> None:
        world.version("b2", world.label(100 + len(world.labels), "dog"))

    scene.backup(report=work)
    for key in scene.objects():
        scene.deployment.within(scene.record).delete(key)
    scene.restore()
    check_whole(scene.deployment.within(scene.record), scene.folder)


def test_features_that_are_gathered_meanwhile_are_not_lost(scene: Scene) -> None:
    world, store = scene.world, scene.deployment.within(scene.record)
    world.featurise("b2", "20260103T000000-a", 5)
    world.featurise("b2", "20260104T000000-a", 6)
    merged: list[str] = []

    def work(what: str, _done: int, _of: int) -> None:
        if what == "back up the log" and not merged:
            features = FeatureStore(store, "b2", scene.folder / "m")
            features.update()
            small = ["20260103T000000-a", "20260104T000000-a"]
            merged.append(features.merge(small))
            features.drop(small)

    scene.backup(report=work)
    for key in scene.objects():
        store.delete(key)
    scene.restore()
    check_whole(store, scene.folder)
    features = FeatureStore(store, "b2", scene.folder / "n")
    features.update()
    assert {URIS[4], URIS[5]} <= set(features.index.places)


def test_what_is_damaged_is_left_out_and_said(scene: Scene) -> None:
    store, registry = scene.deployment.within(scene.record), scene.deployment.registry(scene.record)
    shard = next(k for k in scene.objects() if k.startswith("snapshots/shards/"))
    bad = [registry.version("v4").head_key, "backbones/b2/weights.safetensors", shard,
           "features/b2/rows/20260102T000000-a.safetensors"]  # fmt: skip
    for key in bad:
        store.put(key, b"not what it was")
    done = scene.backup()
    assert sorted(line.partition(":")[0] for line in done.damaged) == sorted(bad)
    records = ["models/versions/00000002.json", "deployments/00000003.json"]  # who needs what is not known any more
    for key in records:
        store.put(key, b'{"number"')
    done = scene.backup()
    assert sorted(line.partition(":")[0] for line in done.damaged) == sorted([*bad, *records])


def test_without_features_they_are_computed_again(scene: Scene) -> None:
    done = scene.backup(BackupParts(features=False))
    beside = ("features/", copy_key(COPY))  # the project's record stands beside in the archive
    assert done.objects == len([k for k in scene.objects() if not k.startswith(beside)])


def test_images_come_along_where_that_is_wanted(scene: Scene) -> None:
    images = S3Store(scene.deployment.s3, "images")
    scene.deployment.s3.create_bucket(Bucket="images")
    for uri in URIS[:5]:
        images.put(uri.removeprefix("s3://images/"), uri.encode())
    done = scene.backup(BackupParts(images=True))
    assert done.images == 5
    assert len(done.damaged) == 2  # one that is gone, one in a bucket that is not allowed
    images.delete("1.png")
    restored = scene.restore(title="again")
    assert restored.images == 1
    assert images.get("1.png") == URIS[0].encode()


# --- restore, into the very project


def test_missing_and_damaged_objects_are_put_back(scene: Scene) -> None:
    scene.backup()
    before, store = scene.objects(), scene.deployment.within(scene.record)
    mutable = ("runs/", "scores/", "backbones/initial", "deleted", "paused", copy_key(COPY))
    immutable = [k for k in before if not k.startswith(mutable)]
    for i, key in enumerate(immutable):
        if i % 2:
            store.delete(key)
        else:
            store.put(key, before[key][:-3] + b"???")
    done = scene.restore()
    assert not done.anew
    assert done.put == len(immutable)
    assert scene.objects() == before
    again = scene.restore()
    assert (again.put, again.intact) == (0, len(before) - 2)  # the pause is left to people, the record stands beside


def test_what_is_newer_stays(scene: Scene) -> None:
    scene.backup()
    world = scene.world
    world.version("b2", world.label(6, "dog"))
    before = scene.objects()
    done = scene.restore()
    assert (done.put, done.newer, done.live) == (0, 1, "v5")  # `latest` has moved on
    assert scene.objects() == before


def test_a_forgotten_project_is_looked_after_again(scene: Scene) -> None:
    scene.backup()
    scene.deployment.projects.remove(scene.record.key)
    scene.restore()
    assert scene.deployment.projects.get(scene.record.key) == scene.record


def another_history(scene: Scene) -> None:
    """The state was lost, and the loop began from the first version again."""
    for key in scene.objects():
        scene.deployment.within(scene.record).delete(key)
    fresh = World(scene.deployment.within(scene.record), scene.folder / "f")
    fresh.registry.set_initial_backbone(fresh.backbone("b1"))
    for task in range(1, 7):
        fresh.version("b1", fresh.label(task, "dog"))


def test_another_history_is_not_overwritten_unasked(scene: Scene) -> None:
    scene.backup()
    another_history(scene)
    before = scene.objects()
    with pytest.raises(ConflictError, match=r"has diverged from the backup.*--force.*--title"):
        scene.restore()
    assert scene.objects() == before


def test_with_force_the_backup_wins_and_the_log_goes_on(scene: Scene) -> None:
    scene.backup()
    kept = scene.objects()
    another_history(scene)
    done = scene.restore(force=True)
    assert done.live == "v4"
    registry = scene.deployment.registry(scene.record)
    log = registry.deployments()
    assert [d.version for d in log] == ["v1", "v2", "v3", "v4", "v5", "v6", "v4"]
    assert log[-1].why.startswith("restored from the backup of ")
    now = scene.objects()
    assert all(now[k] == v for k, v in kept.items() if k.startswith(("models/", "deployments/")))
    check_whole(scene.deployment.within(scene.record), scene.folder)
    assert any("restart" in note for note in done.notes)


# --- restore, as a new project


def answers(api: StudioApi, number: int) -> dict[str, list[Any]]:
    return {
        row["data"]["image"]: [
            (a["result"][0]["value"]["choices"] if a["result"] else None, a["was_cancelled"], a.get("ground_truth") or
             False, a.get("lead_time"), a["completed_by"]) for a in row["annotations"]
        ] for row in api.of_project(number)
    }  # fmt: skip


def test_a_new_project_goes_on_where_the_old_one_was(scene: Scene) -> None:
    scene.backup()
    done = scene.restore(title="pets again")
    assert (done.anew, done.tasks, done.annotations, done.live) == (True, 7, 4, "v4")
    record = scene.deployment.projects.get(done.key)
    assert record.id != scene.record.id
    assert record.title == "pets again"
    assert record.config == scene.record.config
    assert (record.storage_id, record.backend_id) != (None, None)
    assert answers(scene.api, record.id) == answers(scene.api, scene.record.id)  # the deleted one is deleted again
    by_uri = {row["data"]["image"]: row for row in scene.api.of_project(record.id)}
    assert by_uri[URIS[3]]["data"]["note"] == "blurred"
    assert by_uri["s3://elsewhere/1.png"]["meta"] == {"from": "hand"}
    store = scene.deployment.within(record)
    assert SnapshotStore(store).latest() is None  # begun afresh, of what the new tasks say
    registry = scene.deployment.registry(record)
    registry.head(registry.version("v4"))
    assert [d.version for d in registry.deployments()] == ["v1", "v2", "v3", "v4"]


def test_what_label_studio_cannot_be_told_is_kept_beside(scene: Scene) -> None:
    scene.backup()
    scene.api.users = {1: "owner@example.com"}  # anna has left
    done = scene.restore(title="again")
    record = scene.deployment.projects.get(done.key)
    first, second = next(r for r in scene.api.of_project(record.id) if r["data"]["image"] == URIS[0])["annotations"]
    old = next(r for r in scene.api.of_project(scene.record.id) if r["data"]["image"] == URIS[0])["annotations"]
    assert first["completed_by"] == 1
    kept = {"by": "anna@example.com", "created_at": old[0]["created_at"], "updated_at": old[0]["updated_at"]}
    assert first["result"][0]["meta"]["restored"] == kept
    assert second["result"][0]["meta"]["restored"]["by"] == "owner@example.com"
    skipped = next(r for r in scene.api.of_project(record.id) if r["data"]["image"] == URIS[1])
    assert skipped["meta"]["restored"][0]["by"] == "owner@example.com"
    assert any("anna@example.com" in note for note in done.notes)


def test_a_restore_of_a_restore_keeps_the_first_dates(scene: Scene) -> None:
    scene.backup()
    first = scene.restore(title="again")
    record = scene.deployment.projects.get(first.key)
    again = replace(scene, record=record)
    again.backup()
    second = again.restore(title="and again")
    old, new = (
        sorted(json.dumps(a["result"][0].get("meta"), sort_keys=True) for r in scene.api.of_project(number)
               for a in r["annotations"] if a["result"])
        for number in (record.id, scene.deployment.projects.get(second.key).id)
    )  # fmt: skip
    assert old == new


def test_label_studio_has_lost_the_project(scene: Scene) -> None:
    scene.backup()
    scene.deployment.studio.http.call("DELETE", f"api/projects/{scene.record.id}/")
    done = scene.restore()
    assert done.anew
    assert done.project == "pets"
    assert [r.key for r in scene.deployment.projects.all()] == [done.key]  # the lost one is not looked after any more


def test_a_restore_that_breaks_off_leaves_nothing(scene: Scene) -> None:
    scene.backup()
    before, keys = scene.objects(), {i.key for i in scene.deployment.store.list("")}
    scene.api.fail_after = 2
    with pytest.raises(StudioError):
        scene.restore(title="again")
    assert list(scene.api.projects) == [scene.record.id]
    assert {i.key for i in scene.deployment.store.list("")} == keys
    assert scene.objects() == before


def test_answers_that_label_studio_swallows_are_noticed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.backup()
    real = scene.api.annotate
    monkeypatch.setattr(
        scene.api, "annotate", lambda task, **more: real(task, **more) if more["lead_time"] else {"id": 0}
    )
    with pytest.raises(LabelloopError, match="holds 3 answers of 4"):
        scene.restore(title="again")
    assert list(scene.api.projects) == [scene.record.id]


@pytest.mark.parametrize(("title", "says"), [("pets", "is called 'pets' already")])
def test_a_name_is_given_once(scene: Scene, title: str, says: str) -> None:
    scene.backup()
    with pytest.raises(SettingsError, match=says):
        scene.restore(title=title)


def test_images_that_may_not_be_read_are_said_before(scene: Scene) -> None:
    scene.backup()
    settings = replace(scene.deployment.settings, image_buckets=("other",))
    other = replace(scene.deployment, settings=settings)
    vars(other)["studio"] = scene.deployment.studio
    with pytest.raises(SettingsError, match="add images to LABELLOOP_IMAGE_BUCKETS"):
        replace(scene, deployment=other).restore(title="again")
    assert list(scene.api.projects) == [scene.record.id]


def test_the_config_is_the_same_so_that_old_runs_count(scene: Scene) -> None:
    scene.backup()
    done = scene.restore(title="again")
    assert scene.deployment.projects.get(done.key).config.hash == scene.record.config.hash
    assert ProjectConfig().hash != scene.record.config.hash
    assert isinstance(scene.deployment.registry(scene.record), Registry)
