"""What is too large for a record is damaged, and not read; what a newer release wrote is not damaged."""

from __future__ import annotations

import gzip
from dataclasses import asdict

import pytest

from labelloop.errors import CorruptObjectError, NotFoundError
from labelloop.limits import RECORD, inflated
from labelloop.objects.copies import get_copy
from labelloop.objects.formats import UNREADABLE
from labelloop.objects.storage import MemoryStore, ObjectStore
from labelloop.remedies import UPGRADE
from labelloop.store.projects import ProjectStore
from labelloop.store.registry import Registry
from labelloop.store.runs import RunStore
from operations.damaged import damaged_objects, set_aside
from retrain_worker.training.checkpoint import StoredKeeper
from sync.inspect import Inspection
from tests.unit.worlds.backend import World, lease, world_of
from tests.unit.worlds.damage import here

JUNK = b" " * (RECORD + 1)


@pytest.mark.parametrize("key", ["runs/1-refresh.json", "models/versions/00000001.json", "deployments/00000001.json",
                                 "paused.json", "snapshots/latest.json", "copies/record.json.gz"])  # fmt: skip
def test_what_is_too_large_for_a_record_is_damaged_and_not_read(key: str) -> None:
    world = world_of(8)
    world.own.put(key, JUNK)
    with pytest.raises(CorruptObjectError, match=r"it has 17 MB or more") as raised:
        world.own.get(key)
    assert raised.value.key == key
    (damaged,) = damaged_objects(here(world), world.record)
    assert damaged.key == f"projects/{world.record.key}/{key}"
    damage = Registry(world.own, lease).damage
    Inspection(world.own, damage, {}).turn()
    assert damage.keys() in ([key], [])  # a copy is written again


def test_a_project_record_of_any_size_is_read_from_its_copy_and_healed() -> None:
    world = World()
    key = f"index/{world.record.key}.json"
    world.store.put(key, JUNK)
    projects = ProjectStore(world.store, "main")
    assert projects.all() == [world.record]
    projects.heal(world.record)
    assert len(world.store.get(key)) < RECORD


def test_what_is_too_large_is_set_aside_by_its_number_alone() -> None:
    world = world_of(8, 8)
    world.own.put("models/versions/00000002.json", JUNK)
    (damaged,) = damaged_objects(here(world), world.record)
    set_aside(here(world), world.record, [damaged])
    assert b"cannot be read" in world.own.get("damaged/models/versions/00000002.json")
    assert world.add(world.backbone(8), answer=0).name == "v3"


def test_a_run_whose_record_is_too_large_ends_all_the_same() -> None:
    store: ObjectStore = World().own
    runs = RunStore(store)
    run = runs.start("refresh", snapshot="s", config="c", attempt=1, worker="w")
    store.put(f"runs/{run.id}.json", JUNK)
    runs.require_running(run)
    runs.end(run, "hold", ("as good",))
    assert [r.outcome for r in RunStore(store).all()] == ["hold"]


def test_objects_that_grow_with_the_images_are_read_whatever_their_size() -> None:
    store = MemoryStore()
    for key in ("projects/p/catalogue/x.jsonl", "projects/p/models/heads/x.safetensors", "images/index/x"):
        store.put(key, JUNK)
        assert len(store.get(key)) > RECORD
    with pytest.raises(NotFoundError):
        store.get("projects/p/runs/none.json")


def test_a_copy_that_unpacks_to_more_than_a_record_is_damaged() -> None:
    world = World()
    world.store.put(f"index/{world.record.key}.json", b"{}")
    world.own.put("copies/record.json.gz", gzip.compress(JUNK))
    projects = ProjectStore(world.store, "main")
    assert projects.all() == []
    with pytest.raises(CorruptObjectError, match="more than 17 MB"):
        get_copy(world.own, "record.json")


@pytest.mark.parametrize(
    "raw",
    [b"", b"junk", gzip.compress(b"text")[:-4], gzip.compress(b"text") + b"junk"],
    ids=["empty", "junk", "cut off", "longer"],  # the bytes hold the time, and workers must collect the same names
)
def test_what_does_not_unpack_is_one_of_the_errors_of_unreadable_bytes(raw: bytes) -> None:
    with pytest.raises(UNREADABLE):
        if inflated(raw) == b"":
            raise EOFError


def test_unpacking_ends_at_the_limit() -> None:
    assert inflated(gzip.compress(b"text"), 4) == b"text"
    with pytest.raises(ValueError, match="more than"):
        inflated(gzip.compress(b"\0" * 10_000_000), 1000)


@pytest.mark.parametrize("note", [b"[" * 100_000, b'{"tensors": "a", "sha256": 1e999}', b"[1]", b"\xff", JUNK])
def test_a_checkpoint_that_cannot_be_read_is_started_over(note: bytes) -> None:
    store = World().own
    keeper = StoredKeeper(store, {"snapshot": "s"})
    store.put(f"{keeper._place}note.json", note)
    store.put(f"{keeper._place}a", b"junk")
    assert keeper.load() is None


# --- of a newer release


def test_what_a_newer_release_wrote_asks_for_an_upgrade_and_is_never_set_aside() -> None:
    world = world_of(8)
    world.own.put("models/versions/00000001.json", b'{"format": 99}')
    (damaged,) = damaged_objects(here(world), world.record)
    assert "written by a newer labelloop" in damaged.reason
    assert "upgrade this process" in damaged.reason
    assert asdict(damaged) | {"reason": ""} == {
        "key": f"projects/{world.record.key}/models/versions/00000001.json", "reason": "", "remedy": UPGRADE,
        "spare": False,
    }  # fmt: skip
    assert set_aside(here(world), world.record, [damaged]) == []
