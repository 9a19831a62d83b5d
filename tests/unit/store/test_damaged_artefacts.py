"""Heads and weights that cannot be read, and the ways out of that."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import cli.connect
from cli.main import app
from labelloop.errors import CorruptObjectError
from labelloop.model.net import dump
from labelloop.records.evidence import Outcome, Verdict
from labelloop.records.images import Split
from labelloop.rules.split import split_of
from labelloop.store.features import FeatureStore
from labelloop.store.registry import Registry
from labelloop.upkeep.rollback import intact_way_back
from ml_backend.live import LiveProject
from ml_backend.loader import Engines
from ml_backend.metrics import Metrics
from operations.damaged import damaged_artefacts
from operations.doctor import models
from retrain_worker import refresh, retrain
from retrain_worker.featurise import featurise
from sync.inspect import Inspection
from sync.weights import WeightsPublisher
from tests.unit.worlds.backend import World, lease, world_of
from tests.unit.worlds.damage import Queue, here
from tests.unit.worlds.learning import LearningWorld


def weights_of(world: World, version: str) -> str:
    return f"backbones/{world.registry.version(version).backbone}/weights.safetensors"


# --- heads and weights


@pytest.mark.parametrize("what", ["head", "weights"])
def test_a_refusal_names_the_object_and_the_way_out_until_it_is_back(what: str) -> None:
    world = world_of(8, 16)
    key = world.registry.version("v2").head_key if what == "head" else weights_of(world, "v2")
    good = world.own.get(key)
    world.corrupt(key)
    live = LiveProject(world.record, world.store, Engines(), Metrics())
    live.refresh()
    assert live.model is not None
    assert live.model.name == "v1"
    (refused,) = live.refused()
    for part in (key, "hash", "`labelloop rollback`", "`labelloop restore`"):
        assert part in refused.reason
    assert [row[0] for row in live.facts()["damaged"]] == [key]
    world.own.put(key, good)
    live._refused.clear()  # a minute later
    live.refresh()
    assert live.model.name == "v2"
    assert live.facts()["damaged"] == []


def test_what_was_damaged_of_a_version_that_is_live_no_more_is_let_go() -> None:
    world = world_of(8, 16)
    world.corrupt(world.registry.version("v2").head_key)
    live = LiveProject(world.record, world.store, Engines(), Metrics())
    live.refresh()
    assert live.facts()["damaged"]
    world.deploy(world.add(world.backbone(8), answer=1))
    live.refresh()
    assert live.facts()["damaged"] == []


def test_doctor_names_key_and_way_out() -> None:
    world = world_of(8)
    version = world.registry.version("v1")
    world.corrupt(version.head_key)
    world.corrupt(weights_of(world, "v1"))
    finding = models.champion(world.registry)
    assert version.head_key in finding.found
    assert "`labelloop rollback`" in finding.remedy
    assert "`labelloop restore`" in finding.remedy
    finding = models.backbone(world.registry)
    assert weights_of(world, "v1") in finding.found
    assert "`labelloop retrain`" in finding.remedy
    assert "`labelloop restore`" in finding.remedy


def test_doctor_reads_weights_and_the_rows_that_count() -> None:
    world = world_of(8)
    backbone = world.registry.version("v1").backbone
    features = FeatureStore(world.own, backbone, Path("none"))
    for shard in ("20260101T000000000000-a", "20260102T000000000000-b"):
        features.add(shard, ["u"], ["e"], np.ones((1, 8), dtype=np.float32))
    world.corrupt(f"features/{backbone}/rows/20260101T000000000000-a.safetensors")  # computed again since
    damaged, size, left = damaged_artefacts(here(world), world.record)
    assert (damaged, left) == ([], 0)
    assert size > len(world.own.get(weights_of(world, "v1")))
    world.corrupt(f"features/{backbone}/rows/20260102T000000000000-b.safetensors")
    world.corrupt(weights_of(world, "v1"))
    keys = {item.key for item in damaged_artefacts(here(world), world.record)[0]}
    prefix = f"projects/{world.record.key}/"
    assert keys == {
        prefix + weights_of(world, "v1"),
        f"{prefix}features/{backbone}/rows/20260102T000000000000-b.safetensors",
    }


@pytest.mark.parametrize("value", [None, "x", {}, [1], float("inf")])
def test_a_backbones_record_with_outputs_that_are_none_is_read_from_its_copy(value: object) -> None:
    world = world_of(8)
    key = f"backbones/{world.registry.version('v1').backbone}/backbone.json"
    good = world.own.get(key)
    data = json.loads(good)
    data["checks"]["features"][0][3] = value
    world.own.put(key, json.dumps(data).encode())
    live = LiveProject(world.record, world.store, Engines(), Metrics())
    live.refresh()
    assert live.model is not None
    Inspection(world.own, Registry(world.own, lease).damage, {}).turn()
    assert world.own.get(key) == good


# --- the way back


def test_a_rollback_passes_over_heads_and_weights_and_records_that_cannot_be_read() -> None:
    world = world_of(8, 8, 16, 8, 8)
    world.corrupt(world.registry.version("v4").head_key)
    world.corrupt(weights_of(world, "v3"))
    world.own.put("models/versions/00000002.json", b"{}")
    back = intact_way_back(Registry(world.own, lease))
    assert back.version == "v1"
    assert [name for name, _ in back.skipped] == ["v4", "v3", "v2"]
    for (_, why), key in zip(back.skipped, ("models/heads/", weights_of(world, "v3"), "models/versions/"), strict=True):
        assert key in why


def test_a_version_that_is_not_live_because_it_cannot_be_read_is_no_step_back() -> None:
    world = world_of(8, 8, 8)
    world.own.put("models/versions/00000003.json", b"{}")
    registry = Registry(world.own, lease)
    assert registry.way_back() == ["v1", "v2"]
    assert registry.rollback_target() == "v1"
    assert intact_way_back(registry).version == "v1"


def test_no_way_back_is_said_with_what_was_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of(8, 8)
    key = world.registry.version("v1").head_key
    world.corrupt(key)
    registry = Registry(world.own, lease)
    deployment: Any = SimpleNamespace(project=lambda _name: world.record, registry=lambda _record: registry)
    monkeypatch.setattr(cli.connect, "open_deployment", lambda _state_dir: deployment)
    done = CliRunner().invoke(app, ["rollback"])
    assert done.exit_code == 1
    assert f"v1 is skipped: {key}" in done.output
    assert "no earlier version to go back to" in re.sub(r"\s+", " ", done.output + str(done.exception or ""))


# --- what the worker does


CNN = {
    "backbone": {"name": "small_cnn", "image_size": 16, "options": {"filters": [8], "dense": 16, "dropout": 0.0}},
    "retrain": {"epochs": 1, "learning_rate": 0.01, "backbone_rate": 1.0},
}


@pytest.mark.parametrize("both", [False, True])
def test_a_retrain_goes_on_without_the_champions_head(
    tmp_path: Path, both: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is judged against the newest intact version before it, and replaces the champion."""
    for module in (refresh, retrain):
        monkeypatch.setattr(module, "judge", lambda *_: Verdict(Outcome.PROMOTE, ("forced",)))
    world = LearningWorld(tmp_path, images=200, config=CNN)
    for count in (60, 100):
        snapshot = world.label([*world.uris(Split.TRAIN)[:count], *world.uris(Split.TEST)[: count // 3]])
        world.refresh(snapshot)
    for name in ("v1", "v2") if both else ("v2",):
        world.project.store.put(world.project.registry.version(name).head_key, b"junk")
    judged = world.retrain(snapshot)
    opponent = "none" if both else "v1"
    assert f"the head of v2 cannot be read: judged against {opponent} instead" in judged.verdict.reasons
    assert world.live().name == judged.version
    assert world.live().parent == "v2"


def test_weights_that_were_not_fine_tuned_are_built_again(tmp_path: Path) -> None:
    world = LearningWorld(tmp_path, images=20)
    project = world.project
    record = project.registry.initial_backbone()
    assert record is not None
    key = f"backbones/{record.id}/weights.safetensors"
    good = project.store.get(key)
    project.store.put(key, good[:-9])
    world.context._backbone = None  # a process that has just begun
    world.add(5)
    assert project.store.get(key) == good
    project.store.delete(key)
    assert dump(retrain.start_of(world.context, project)) == good
    assert project.store.get(key) == good


def test_the_watcher_asks_once_for_weights_that_can_be_built_again() -> None:
    world = world_of(8)
    record = world.registry.backbone(world.registry.version("v1").backbone)
    tuned = replace(record, id="tuned", snapshot="s")
    world.registry.add_backbone(tuned, b"others")
    world.corrupt(weights_of(world, "v1"))
    queue: Any = Queue()
    damage = Registry(world.own, lease).damage
    weights = WeightsPublisher(world.record.key, world.own, Registry(world.own, lease), queue)
    inspection = Inspection(world.own, damage, {"backbones/": weights.repair}, weights)
    for _ in range(3):
        inspection.turn()
        assert damage.keys() == sorted([weights_of(world, "v1"), "backbones/tuned/weights.safetensors"])
        assert [kind for kind, _ in queue.jobs.values()] == ["featurise"]
        queue.jobs = dict(list(queue.jobs.items())[:1])
    world.corrupt(weights_of(world, "v1"))  # flipped back
    inspection.turn()
    assert damage.keys() == ["backbones/tuned/weights.safetensors"]


def test_weights_that_learned_are_not_guessed(tmp_path: Path) -> None:
    world = LearningWorld(tmp_path, images=20)
    project = world.project
    record = project.registry.initial_backbone()
    assert record is not None
    project.store.put(f"backbones/{record.id}/weights.safetensors", b"junk")
    world.configure({"backbone": {"name": "pixels", "options": {"projection": 8}}})  # another network by now
    with pytest.raises(CorruptObjectError, match=r"weights\.safetensors cannot be read: .*`labelloop retrain`"):
        world.context.weights(project, record)


def test_an_image_whose_catalogue_is_gone_gets_the_same_split_from_its_content(tmp_path: Path) -> None:
    """Nobody knows that a shard is missing which is gone with its copy; what it decided follows from the bytes."""
    world = LearningWorld(tmp_path, images=120)
    before = {uri: (f.group, f.bucket) for uri, f in world.project.catalogue.images.items()}
    assert len({bucket for _, bucket in before.values()}) == 3
    for prefix in ("catalogue/", "copies/catalogue/", "features/"):
        for info in list(world.project.store.list(prefix)):
            world.project.store.delete(info.key)
    fresh = world.reopened(tmp_path / "fresh")
    featurise(world.context, fresh, sorted(world.images.kept))
    fresh.catalogue.update()
    assert {uri: (f.group, f.bucket) for uri, f in fresh.catalogue.images.items()} == before
    shares = fresh.record.config.buckets.shares()
    assert all(bucket is split_of(group, shares) for group, bucket in before.values())


def test_a_labelled_image_without_features_is_held_while_its_split_is_lost(tmp_path: Path) -> None:
    world = LearningWorld(tmp_path, images=60)
    labelled, other = sorted(world.truth)[:2]
    world.label([labelled])
    for info in list(world.project.store.list("catalogue/")):
        world.project.store.put(info.key, b"{}")
        world.project.store.put(f"copies/{info.key}.gz", b"{}")
    for info in list(world.project.store.list("features/")):
        world.project.store.delete(info.key)
    fresh = world.reopened(tmp_path / "fresh")
    featurise(world.context, fresh, [labelled, other])
    fresh.catalogue.update()
    assert set(fresh.catalogue.images) == {other}  # nothing ever learned from it, or was judged by it
