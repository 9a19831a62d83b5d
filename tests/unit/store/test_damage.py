"""One damaged object costs itself: the backend gets ready, other projects go on, it is named, and heals if it can."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import structlog

from bench.faults.damage import kinds_of, play
from labelloop.config.project import parse_config
from labelloop.errors import ConflictError, CorruptArtefactError, CorruptObjectError, FormatError
from labelloop.objects.formats import Kind, read
from labelloop.objects.storage import MemoryStore
from labelloop.records.json import canonical
from labelloop.store.features import FeatureStore
from labelloop.store.projects import ProjectStore, project_store
from labelloop.store.registry import Registry
from labelloop.upkeep.tidying import Tidier
from retrain_worker.featurise import _undecided
from tests.unit.worlds.backend import World as BackendWorld
from tests.unit.worlds.damage import DAMAGES, HOSTILE, OTHER, VICTIM, Base, build, lease, loop_of

KINDS = (
    "project record", "auto-labels", "backbones/initial.json", "backbones/backbone.json",
    "backbones/weights.safetensors", "catalogue", "checkpoints/note.json", "configs",
    "copy of backbones/backbone.json", "copy of catalogue", "copy of record.json", "curve.json", "deleted.json",
    "deployments", "features/index", "features/rows", "gc.json", "lr_curves", "mirror/index", "models/heads",
    "models/versions", "reports/*.html", "reports/*.json", "runs", "scores", "set-up.json", "snapshots/latest.json",
    "snapshots/manifests", "snapshots/shards", "study", "task-groups", "trial", "requests", "paused.json",
)  # fmt: skip
HEALED = {
    "project record", "backbones/initial.json", "backbones/backbone.json", "catalogue", "copy of catalogue",
    "copy of backbones/backbone.json", "copy of record.json", "configs", "snapshots/latest.json", "snapshots/manifests",
    "snapshots/shards", "curve.json", "deleted.json", "backbones/weights.safetensors",
    "features/rows", "task-groups",
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield build(tmp_path_factory.mktemp("base"))
    structlog.configure(**before)


def test_no_kind_is_forgotten(base: Base) -> None:
    assert set(kinds_of(base)) == set(KINDS)


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_damaged_object_costs_itself(base: Base, kind: str, restarted: bool) -> None:
    for name, damage in DAMAGES.items():
        outcome = play(base, kind, damage, name, restarted=restarted)
        assert outcome.ready, outcome
        assert outcome.other, outcome
        assert outcome.answers.startswith("v"), outcome
        assert outcome.learns or kind == "paused.json", outcome
        assert outcome.doctor, outcome
        assert outcome.status or outcome.healed, outcome
        assert outcome.healed or kind not in HEALED, outcome


@pytest.mark.parametrize("kind", ["project record", "deployments", "models/versions", "runs", "catalogue", "scores"])
def test_bytes_that_somebody_made_cost_no_more(base: Base, kind: str) -> None:
    for name, damage in HOSTILE.items():
        outcome = play(base, kind, damage, name, restarted=True)
        assert outcome.ready, outcome
        assert outcome.other, outcome
        assert outcome.answers.startswith("v"), outcome


# --- what the matrix does not show


def test_a_damaged_newest_entry_makes_its_predecessor_live_and_is_never_overwritten() -> None:
    world = BackendWorld()
    versions = [world.add(world.backbone(), answer=i) for i in range(3)]
    for version in versions[:2]:
        world.deploy(version)
    world.own.put("deployments/00000002.json", b"[1]")
    registry = Registry(world.own, lease)
    live = registry.live()
    assert live is not None
    assert live.version == "v1"
    with pytest.raises(ConflictError):
        registry.deploy("v3", expected="v2", action="deploy", by="test", why="")
    assert registry.deploy("v3", expected="v1", action="deploy", by="test", why="").number == 3
    assert world.own.get("deployments/00000002.json") == b"[1]"
    assert [d.version for d in Registry(world.own, lease).deployments()] == ["v1", "v3"]


def test_an_entry_that_is_brought_back_counts_again() -> None:
    world = BackendWorld()
    for version in [world.add(world.backbone(), answer=i) for i in range(2)]:
        world.deploy(version)
    good = world.own.get("deployments/00000002.json")
    world.own.put("deployments/00000002.json", good[:-9])
    registry = Registry(world.own, lease)
    assert [d.version for d in registry.deployments()] == ["v1"]
    world.own.put("deployments/00000002.json", good)
    assert [d.version for d in registry.deployments()] == ["v1", "v2"]
    assert registry.damage.all() == []


def test_a_number_is_not_given_twice_after_its_object_was_set_aside() -> None:
    world = BackendWorld()
    world.deploy(world.add(world.backbone(), answer=0))
    for key in ("deployments/00000001.json", "models/versions/00000001.json"):
        world.own.put(f"damaged/{key}", b"junk")
        world.own.delete(key)
    registry = Registry(world.own, lease)
    registry_world = world.add(world.backbone(), answer=1)
    assert registry_world.name == "v2"
    assert registry.deploy("v2", expected=None, action="deploy", by="test", why="").number == 2


def test_a_damaged_live_version_is_replaced_by_the_one_before_for_everybody() -> None:
    world = BackendWorld()
    for version in [world.add(world.backbone(), answer=i) for i in range(2)]:
        world.deploy(version)
    world.own.put("models/versions/00000002.json", b"{}")
    registry = Registry(world.own, lease)
    live = registry.live()
    assert live is not None
    assert live.version == "v1"
    assert [v.name for v in registry.versions()] == ["v1"]
    assert registry.damage.keys() == ["models/versions/00000002.json"]


@pytest.mark.parametrize("both", [False, True])
def test_a_project_record_is_read_from_its_copy_else_told(both: bool) -> None:
    world = BackendWorld()
    key = f"index/{world.record.key}.json"
    world.store.put(key, b"\x00\xff")
    if both:
        world.own.put("copies/record.json.gz", b"junk")
    projects = ProjectStore(world.store, "main")
    assert projects.all() == ([] if both else [world.record])
    assert [d.key for d in projects.damaged()] == [key]
    assert [d.key for d in projects.unread()] == ([key] if both else [])
    projects.heal(world.record)
    assert ProjectStore(world.store, "main").all() == [world.record]


def test_an_unknown_value_of_a_config_is_told_and_left_to_a_person() -> None:
    world = BackendWorld()
    raw = json.loads(world.store.get(f"index/{world.record.key}.json"))
    raw["config"]["head"]["kind"] = "of a newer release"
    world.store.put(f"index/{world.record.key}.json", canonical(raw))
    world.own.delete("copies/record.json.gz")
    projects = ProjectStore(world.store, "main")
    assert projects.all() == []
    (unread,) = projects.unread()
    assert "head.kind" in unread.reason
    projects.heal(world.record)
    assert json.loads(world.store.get(unread.key)) == raw


def test_lost_catalogue_shards_deal_no_image_again(base: Base, tmp_path: Path) -> None:
    with loop_of(base, tmp_path) as (store, start):
        key = base.records[VICTIM].key
        own = project_store(store, key)
        before = {info.key: own.get(info.key) for info in own.list("catalogue/")}
        for shard in before:
            own.put(shard, b"{}")
            own.put(f"copies/{shard}.gz", b"{}")
        project = start().project(key)
        shares = {**project.record.config.model_dump(), "buckets": {"test": 0.9}}  # others than when they were dealt
        project.record = replace(project.record, config=parse_config(shares, "test"))
        project.catalogue.update()
        assert _undecided(project, base.uris[VICTIM]) == []
        assert project.catalogue.lost == sorted(before)
        for shard, raw in before.items():
            own.put(shard, raw)
        project.catalogue._shards.look_at_all()
        project.catalogue.update()
        assert project.catalogue.lost == []
        assert _undecided(project, base.uris[VICTIM]) == base.uris[VICTIM]


def test_a_refresh_goes_on_without_an_image_that_has_no_features_and_says_so(base: Base, tmp_path: Path) -> None:
    with loop_of(base, tmp_path) as (_, start):
        loop = start()
        studio = base.studios.of[VICTIM]
        task = studio.add_task("https://nowhere.example/x.png")
        base.label(VICTIM, 12)
        studio.annotate(task, "0")
        loop.watch()
        loop.watch()
        loop.queue.jobs = {j: job for j, job in loop.queue.jobs.items() if job[0] == "refresh"}
        loop.work()
        (run,) = [r for r in loop.project(base.records[VICTIM].key).runs.all() if r.detail.get("without")]
        assert run.done
        assert f"task {task} (https://nowhere.example/x.png)" in run.reasons[-1]
        loop.watch()
        (status,) = [p for p in loop.status().projects if p.key == base.records[VICTIM].key]
        assert status.without_count == 1
        assert f"task {task}" in status.without[0]


def test_with_damage_nothing_is_tidied_and_the_key_is_named(base: Base, tmp_path: Path) -> None:
    with loop_of(base, tmp_path) as (_, start):
        loop = start()
        project = loop.project(base.records[OTHER].key)
        run = next(info.key for info in project.store.list("runs/"))
        project.store.put(run, b"{}")
        tidier = Tidier(project.store, project.registry, project.runs, project.record.config.retention)
        with pytest.raises(CorruptArtefactError, match=run):
            tidier.tidy()


def test_rows_that_are_damaged_name_their_images_and_are_lost_once(tmp_path: Path) -> None:
    store, lost = MemoryStore(), list[str]()
    features = FeatureStore(store, "b", tmp_path, on_lost=lost.extend)
    features.add("20260101T000000000000-a", ["u1", "u2"], ["e", "e"], np.ones((2, 3), dtype=np.float32))
    store.put("features/b/rows/20260101T000000000000-a.safetensors", b"junk")
    features.update()
    with pytest.raises(CorruptObjectError, match="recomputed automatically"):
        features.rows(["u1"])
    assert sorted(lost) == ["u1", "u2"]
    assert "u1" not in features
    assert [d.key for d in features.lost()] == ["features/b/rows/20260101T000000000000-a.safetensors"]
    features.add("20260102T000000000000-b", ["u1"], ["e"], np.ones((1, 3), dtype=np.float32))
    features.update()
    assert features.lost()  # of u2
    features.add("20260103T000000000000-c", ["u2"], ["e"], np.ones((1, 3), dtype=np.float32))
    features.update()
    assert features.lost() == []
    assert features.index.damage.all() == []


@pytest.mark.parametrize("raw", [b"\xff", b"[1]", b"", b"7", b"[" * 100_000, b'{"a":' + b"1" * 5000 + b"}"])
def test_every_reader_raises_one_error_that_names_the_key(raw: bytes) -> None:
    with pytest.raises(CorruptObjectError, match=r"runs/x\.json"):
        read(Kind.RUN, raw, "runs/x.json")
    with pytest.raises(FormatError, match=r"runs/x\.json"):
        read(Kind.RUN, b'{"format": 99}', "runs/x.json")
