"""Tidying a whole project: what is left works, whenever it was killed, whoever works beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from labelloop.errors import CorruptArtefactError, FormatError, NotFoundError
from labelloop.objects.storage import MemoryStore, ObjectStore
from labelloop.store.catalogue import Catalogue
from labelloop.store.features import FeatureStore
from labelloop.store.registry import Registry
from labelloop.store.runs import RunStore
from labelloop.store.scores import ScoreStore
from labelloop.store.snapshots import SnapshotStore
from labelloop.upkeep.object_kinds import PHASES
from labelloop.upkeep.tidying import DONE, last_tidied
from tests.unit.worlds.tidy import World, lease, project


@pytest.fixture
def world(tmp_path: Path) -> World:
    return project(MemoryStore(), tmp_path)


def check_whole(store: ObjectStore, cache: Path) -> None:
    """Everything that is named can be read."""
    registry, snapshots = Registry(store, lease), SnapshotStore(store)
    for version in registry.versions():
        registry.head(version)
        registry.backbone_weights(registry.backbone(version.backbone))
        snapshots.load(version.snapshot)
        assert ScoreStore(store).newest(version.name)
    live, latest, initial = registry.live(), snapshots.latest(), registry.initial_backbone()
    assert live
    assert latest
    assert initial
    assert registry.version(live.version)
    assert snapshots.load(latest.snapshot).tasks
    registry.backbone_weights(initial)
    backbone = registry.current_backbone()
    assert backbone
    if backbone.snapshot:
        snapshots.load(backbone.snapshot)
    features = FeatureStore(store, backbone.id, cache)
    features.update()
    assert features.rows(list(features.index.places)).shape[1] == 4


def test_a_young_project_keeps_everything(world: World) -> None:
    before = world.keys()
    assert world.tidier().decide().remove == ()
    assert world.tidier().tidy() == ()
    assert world.keys() - before == {DONE}


def test_what_nothing_needs_goes_and_the_rest_works(world: World, tmp_path: Path) -> None:
    world.age(3)
    world.tidier().tidy()
    assert [v.name for v in world.registry.versions()] == ["v3", "v4"]  # the live one and the way back
    assert len(world.keys("models/heads/")) == 2
    assert len(world.keys("snapshots/manifests/")) == 3  # of two versions and of the backbone
    assert len(world.keys("runs/")) == 2
    assert len(world.keys("scores/")) == 2
    assert len(world.keys("deployments/")) == 4
    check_whole(world.store, tmp_path)


def test_a_dry_run_removes_nothing_and_tells_the_same(world: World) -> None:
    world.age(3)
    before = world.keys()
    announced = {item.key for item in world.tidier().decide().remove}
    assert world.keys() == before
    assert {item.key for item in world.tidier().tidy()} == announced
    assert before - world.keys() == announced
    assert world.tidier().decide().remove == ()


def test_what_went_is_remembered(world: World) -> None:
    assert last_tidied(world.store) is None
    world.age(3)
    world.tidier().tidy()
    done = last_tidied(world.store)
    assert done
    assert done.removed["model version"][0] == 2
    assert done.removed["head"][1] > 0


class Dying(MemoryStore):
    """Is killed after a number of deletes."""

    left = 10**9

    def delete(self, key: str) -> None:
        if self.left <= 0:
            raise RuntimeError("killed")
        self.left -= 1
        super().delete(key)


def untidy(store: MemoryStore, cache: Path) -> World:
    """Something of every kind to remove."""
    world = project(store, cache)
    world.backbone("b0")
    world.featurise("b0", "20260101T000000-a", 1, 2)
    world.featurise("b2", "20260103T000000-b", 1, 2, 3, 4)
    store.put("checkpoints/0123/note.json", b"{}")  # of a run that died and was never tried again
    store.put("reports/v0.json", b"{}")  # of a version that is gone
    world.age(3)
    return world


def test_killed_at_any_moment_nothing_dangles(tmp_path: Path) -> None:
    decided = untidy(MemoryStore(), tmp_path).tidier().decide().remove
    assert {item.what for item in decided} == {what for phase in PHASES for what in phase}
    for deletes in range(len(decided)):
        store = Dying()
        world = untidy(store, tmp_path)
        store.left = deletes
        with pytest.raises(RuntimeError, match="killed"):
            world.tidier().tidy()
        check_whole(store, tmp_path)
        store.left = 10**9
        world.tidier().tidy()
        check_whole(store, tmp_path)
        assert world.tidier().decide().remove == ()


def test_a_version_that_is_promoted_meanwhile_stays(world: World, tmp_path: Path) -> None:
    world.age(3)
    tidier = world.tidier()
    forget = world.registry.forget

    def promoted_first(choose: Any) -> list[str]:
        other = Registry(world.store, lease)
        other.deploy("v1", expected="v4", action="promote", by="somebody", why="")
        return forget(choose)

    world.registry.forget = promoted_first  # type: ignore[method-assign]
    tidier.tidy()
    assert "v1" in {v.name for v in world.registry.versions()}
    check_whole(world.store, tmp_path)


def test_a_version_that_went_cannot_be_promoted(world: World) -> None:
    world.age(3)
    stale = Registry(world.store, lease)
    assert stale.version("v1")
    world.tidier().tidy()
    with pytest.raises(NotFoundError, match="no longer kept"):
        stale.deploy("v1", expected="v4", action="promote", by="t", why="")
    assert [v.name for v in stale.versions()] == ["v3", "v4"]
    with pytest.raises(NotFoundError, match="no longer kept"):
        Registry(world.store, lease).version("v1")


def test_heads_that_two_versions_share_stay_with_the_second(world: World, tmp_path: Path) -> None:
    first, last = world.registry.version("v1"), world.registry.version("v4")
    raw = json.loads(world.store.get("models/versions/00000004.json"))
    raw |= {"head_key": first.head_key, "head_sha256": first.head_sha256, "check_probabilities": []}
    world.store.put("models/versions/00000004.json", json.dumps(raw).encode())
    world.age(3)
    world.tidier().tidy()
    assert first.head_key in set(world.keys())
    assert last.head_key not in set(world.keys())


def test_rows_that_were_all_replaced_go_a_day_after(world: World, tmp_path: Path) -> None:
    old, new = "20260102T000000-a", "20260103T000000-b"
    world.featurise("b2", new, 1, 2, 3, 4)
    world.age(0.5)
    world.tidier().tidy()
    assert len(world.keys("features/b2/rows/")) == 2
    world.age(1)
    world.tidier().tidy()
    assert world.keys("features/b2/") == {f"features/b2/index/{new}.json", f"features/b2/rows/{new}.safetensors"}
    assert old not in str(world.keys("features/"))
    check_whole(world.store, tmp_path)


def test_rows_of_which_one_still_counts_stay(world: World) -> None:
    world.featurise("b2", "20260103T000000-b", 1, 2, 3)
    world.age(3)
    world.tidier().tidy()
    assert len(world.keys("features/b2/rows/")) == 2


@pytest.mark.parametrize(
    "key",
    ["models/heads/0.safetensors", "backbones/half/weights.safetensors", "features/b2/rows/half.safetensors",
     "snapshots/shards/half.jsonl.gz", "features/half/rows/1.safetensors"],
)  # fmt: skip
def test_half_written_things_go_after_a_day(world: World, key: str) -> None:
    world.store.put(key, b"half")
    world.age(0.9)
    world.tidier().tidy()
    assert key in set(world.keys())
    world.age(0.2)
    world.tidier().tidy()
    assert key not in set(world.keys())


def test_unknown_objects_stay(world: World) -> None:
    mine = {"deleted.json", "set-up.json", "paused.json", "mirror/1.png", "models/notes.txt", "requests/1.json"}
    for key in mine:
        world.store.put(key, b"{}")
    world.age(4000)
    world.tidier().tidy()
    assert mine <= world.keys()
    assert len(world.keys("catalogue/")) == 2


def test_with_a_damaged_manifest_no_shard_goes(world: World) -> None:
    kept = world.registry.version("v4").snapshot
    world.store.put(f"snapshots/manifests/{kept}.json", b"{}")
    shards = world.keys("snapshots/shards/")
    world.age(3)
    world.tidier().tidy()
    assert world.keys("snapshots/shards/") == shards


def test_what_a_newer_release_wrote_is_not_tidied(world: World) -> None:
    raw = json.loads(world.store.get("models/versions/00000004.json"))
    world.store.put("models/versions/00000004.json", json.dumps({**raw, "format": 99}).encode())
    world.age(3)
    before = world.keys()
    with pytest.raises(FormatError, match="newer labelloop"):
        world.tidier().tidy()
    assert world.keys() == before


@pytest.mark.parametrize("key", ["models/versions/00000002.json", "deployments/00000003.json", "snapshots/latest.json"])
def test_with_a_damaged_record_nothing_goes(world: World, key: str) -> None:
    world.store.put(key, b'{"number"')
    world.age(3)
    before = world.keys()
    with pytest.raises(CorruptArtefactError, match="nothing was removed"):
        world.tidier().tidy()
    assert world.keys() == before


class Vanishing(MemoryStore):
    """Lists objects that are gone when they are read."""

    ghosts: Sequence[str] = ()

    def list(self, prefix: str, *, start_after: str = "") -> Any:
        listed = list(super().list(prefix, start_after=start_after))
        for key in self.ghosts:
            self._objects.pop(key, None)
        return iter(listed)


def test_whoever_reads_while_things_vanish_goes_on(tmp_path: Path) -> None:
    store = Vanishing()
    project(store, tmp_path)
    run = min(info.key for info in store.list("runs/"))
    store.ghosts = ["models/versions/00000001.json", run]
    registry = Registry(store, lease)
    assert [v.name for v in registry.versions()] == ["v2", "v3", "v4"]
    store.put(run, b"{}")
    assert len(RunStore(store).all()) == 3
    catalogue = Catalogue(store)
    catalogue.update()
    assert len(catalogue.images) == 4
