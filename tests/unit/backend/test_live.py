"""What may go live: nothing that is not intact, and one thing at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from labelloop.errors import StorageError
from labelloop.objects.storage import MemoryStore
from ml_backend import live as live_module
from ml_backend.hints import WAITING_NUDGES, Hints
from ml_backend.live import LiveModels, LiveProject, Pace
from ml_backend.loader import Engines
from ml_backend.metrics import Metrics
from tests.unit.worlds.backend import World


def project(world: World, engines: Engines | None = None) -> LiveProject:
    return LiveProject(world.record, world.store, engines or Engines(), Metrics())


def wait_for(what: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def served(live: LiveProject) -> str | None:
    live.refresh()
    return live.model.name if live.model else None


def test_nothing_is_served_before_the_first_deploy() -> None:
    world = World()
    world.add(world.backbone(), answer=0)
    assert served(project(world)) is None


def test_a_new_head_swaps_without_touching_the_backbone() -> None:
    world = World()
    backbone, live = world.backbone(), project(world)
    world.deploy(world.add(backbone, answer=0))
    assert served(live) == "v1"
    engine = live.model.engine if live.model else None
    world.deploy(world.add(backbone, answer=1))
    world.own.delete(f"backbones/{backbone.id}/weights.safetensors")  # would fail if it were read again
    assert served(live) == "v2"
    assert live.model is not None
    assert live.model.engine is engine


def test_a_new_backbone_swaps_and_a_rollback_is_followed() -> None:
    world = World()
    live = project(world)
    world.deploy(world.add(world.backbone(16), answer=0))
    world.deploy(world.add(world.backbone(24), answer=1))
    assert served(live) == "v2"
    world.registry.deploy("v1", expected="v2", action="rollback", by="test", why="test")
    assert served(live) == "v1"


@pytest.mark.parametrize("part", ["head", "weights", "record", "gone", "backbone-gone"])
def test_a_bad_version_never_serves_and_the_reason_is_shown(part: str) -> None:
    world = World()
    live = project(world)
    world.deploy(world.add(world.backbone(16), answer=0))
    assert served(live) == "v1"
    backbone = world.backbone(24)
    version = world.add(backbone, answer=1)
    weights = f"backbones/{backbone.id}/weights.safetensors"
    match part:
        case "head":
            world.corrupt(version.head_key)
        case "weights":
            world.corrupt(weights)
        case "record":
            world.own.put("models/versions/00000002.json", b'{"number": 2}')
        case "gone":
            world.own.delete(version.head_key)
        case _:
            world.own.delete(weights)
    world.deploy(version)
    assert served(live) == "v1"
    (refused,) = live.refused()
    assert refused.version == "v2"
    assert refused.reason
    assert live.facts()["deployed"] == "v2"
    assert live.facts()["refused"][0]["reason"] == refused.reason


def test_a_head_that_answers_differently_than_recorded_never_serves() -> None:
    world = World()
    live = project(world)
    backbone = world.backbone()
    world.add(backbone, answer=0)
    text = world.own.get("models/versions/00000001.json")
    probabilities = str(world.registry.version("v1").check_probabilities[0][0]).encode()
    assert probabilities in text
    world.own.put("models/versions/00000001.json", text.replace(probabilities, b"0.5"))
    world.registry.deploy("v1", expected=None, action="deploy", by="t", why="t")
    assert served(live) is None
    assert "outputs that were stored" in live.refused()[0].reason


def test_at_a_cold_start_the_newest_intact_predecessor_serves() -> None:
    world = World()
    backbone = world.backbone()
    versions = [world.add(backbone, answer=i) for i in range(3)]
    for version in versions:
        world.deploy(version)
    world.corrupt(versions[2].head_key)
    live = project(world)
    assert served(live) == "v2"
    assert live.facts()["deployed"] == "v3"
    assert [r.version for r in live.refused()] == ["v3"]


def test_a_repaired_version_goes_live_later(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    live = project(world)
    version = world.add(world.backbone(), answer=0)
    good = world.own.get(version.head_key)
    world.corrupt(version.head_key)
    world.deploy(version)
    assert served(live) is None
    world.own.put(version.head_key, good)
    assert served(live) is None  # not looked at again at once: the poll is every second
    later = time.monotonic() + Pace().retry_s
    monkeypatch.setattr(live_module.time, "monotonic", lambda: later)
    assert served(live) == "v1"
    assert live.refused() == []


def test_a_bad_version_goes_live_when_it_is_deployed_again_after_repair() -> None:
    world = World()
    live = project(world)
    backbone = world.backbone()
    world.deploy(world.add(backbone, answer=0))
    bad = world.add(backbone, answer=1)
    good = world.own.get(bad.head_key)
    world.corrupt(bad.head_key)
    world.deploy(bad)
    assert served(live) == "v1"
    world.own.put(bad.head_key, good)
    world.deploy(bad)
    assert served(live) == "v2"


class Flaky(MemoryStore):
    """A store that can be away."""

    away = False

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        if self.away:
            raise StorageError("refused")
        return super().get_with_etag(key)


def test_storage_that_is_away_refuses_no_version() -> None:
    store = Flaky()
    world = World(store)
    live = project(world)
    backbone = world.backbone()
    world.deploy(world.add(backbone, answer=0))
    assert served(live) == "v1"
    world.deploy(world.add(backbone, answer=1))
    store.away = True
    assert served(live) == "v1"
    assert live.refused() == []
    store.away = False
    assert served(live) == "v2"


def test_a_slow_load_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    world, other = World(number=1), World(number=2)
    other.store = world.store
    shared = World(world.store, number=2)
    world.deploy(world.add(world.backbone(16), answer=0))
    shared.deploy(shared.add(shared.backbone(16), answer=0))
    models = LiveModels(world.store, world.projects.all, Metrics(), pace=Pace(0.02))
    gate, began = threading.Event(), threading.Event()
    verify = live_module.load_model

    def slow(*args: object) -> object:
        if args[2] == "v2":
            began.set()
            gate.wait(10)
        return verify(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(live_module, "load_model", slow)
    models.start()
    first, second = models.get(world.record), models.get(shared.record)
    assert first.settled(5)
    assert second.settled(5)
    world.deploy(world.add(world.backbone(24), answer=1))
    assert began.wait(5)
    begun = time.monotonic()
    assert models.facts()[world.record.key]["version"] == "v1"
    assert first.versions() == ["v1", "v2"]
    assert time.monotonic() - begun < 0.5
    version = shared.add(shared.backbone(16), answer=2)
    monkeypatch.setattr(live_module, "load_model", verify)
    shared.deploy(version)
    wait_for(lambda: second.facts()["version"] == version.name)
    gate.set()
    wait_for(lambda: first.facts()["version"] == "v2")
    models.stop()


def test_only_so_many_projects_stay_loaded() -> None:
    store = MemoryStore()
    worlds = [World(store, number=i) for i in range(1, 5)]
    models = LiveModels(store, list, Metrics(), limit=2)
    for world in worlds:
        models.get(world.record)
    models.get(worlds[2].record)
    models.get(worlds[0].record)
    assert [p.key for p in models.all()] == [worlds[2].record.key, worlds[0].record.key]
    models.stop()


def test_two_projects_share_one_loaded_backbone() -> None:
    store, engines = MemoryStore(), Engines()
    models = []
    for number in (1, 2):
        world = World(store, number=number)
        world.deploy(world.add(world.backbone(), answer=0))
        live = project(world, engines)
        live.refresh()
        assert live.model is not None
        models.append(live.model)
    assert models[0].engine is models[1].engine


class DeadRedis:
    """Accepts nothing; every call takes its time."""

    def publish(self, *_: object) -> None:
        time.sleep(5)


def test_a_nudge_never_waits_and_never_piles_up() -> None:
    hints = Hints(DeadRedis(), lambda: None, dict)  # type: ignore[arg-type]
    begun = time.monotonic()
    accepted = [hints.nudge(1, "X") for _ in range(WAITING_NUDGES + 10)]
    assert time.monotonic() - begun < 0.1
    assert accepted.count(True) == WAITING_NUDGES
