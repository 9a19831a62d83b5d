"""Snapshots that were damaged: noted, written again from what was frozen, or taken from a newer one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labelloop.errors import CorruptObjectError
from labelloop.objects.damage import Damage
from labelloop.objects.storage import MemoryStore
from labelloop.records.snapshots import Latest, Snapshot, as_of
from labelloop.records.tasks import Annotation, Task
from labelloop.store.snapshots import LATEST, SnapshotStore
from tests.unit.store.test_snapshot import task, written

REF = Latest("0" * 32, 7, "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z", 12)


def shards(store: MemoryStore) -> list[str]:
    return sorted(key for key in written(store) if "shards" in key)


def manifest(snapshot: Snapshot) -> str:
    return f"snapshots/manifests/{snapshot.id}.json"


def test_a_store_that_froze_nothing_mends_nothing() -> None:
    assert SnapshotStore(MemoryStore()).repair() == []


def test_what_is_intact_is_not_written_again() -> None:
    store = MemoryStore()
    snapshots = SnapshotStore(store)
    snapshots.freeze([task(i) for i in range(100)])
    assert snapshots.repair() == []


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_damaged_parts_are_written_again_from_what_was_frozen(how: str) -> None:
    store, tasks = MemoryStore(), [task(i) for i in range(100)]
    snapshots = SnapshotStore(store)
    frozen = snapshots.freeze(tasks)
    wrong = [shards(store)[3], shards(store)[40], manifest(frozen)]
    for key in wrong:
        if how == "gone":
            store.delete(key)
        else:
            store.put(key, store.get(shards(store)[0]))
    assert sorted(snapshots.repair()) == sorted(wrong)
    assert SnapshotStore(store).load(frozen.id).tasks == {t.id: t for t in tasks}
    assert snapshots.repair() == []


def test_only_what_is_named_is_looked_at() -> None:
    store = MemoryStore()
    snapshots = SnapshotStore(store)
    snapshots.freeze([task(i) for i in range(100)])
    one, other = shards(store)[:2]
    for key in (one, other):
        store.put(key, b"?")
    assert snapshots.repair([one]) == [one]
    assert store.get(other) == b"?"
    assert snapshots.repair() == [other]


def test_a_damaged_shard_that_nothing_moved_in_is_written_again_by_the_next_freeze() -> None:
    store, damage = MemoryStore(), Damage()
    snapshots = SnapshotStore(store, damage)
    tasks = {i: task(i) for i in range(100)}
    frozen = snapshots.freeze(tasks.values())
    for key in shards(store):
        store.put(key, b"?")
    with pytest.raises(CorruptObjectError):
        snapshots.load(frozen.id)
    (key,) = damage.keys("snapshots/")
    number = next(i for i in tasks if f"/{snapshots._frozen[i % 64].name}." in key)
    moved = (number + 1) % 100  # of another shard
    tasks[moved] = task(moved, "dog")
    snapshots.advance(tasks, {moved})
    assert store.get(key) != b"?"
    assert list(damage.keys("snapshots/")) == []


def test_a_task_that_is_gone_leaves_the_snapshot() -> None:
    snapshots = SnapshotStore(MemoryStore())
    snapshots.freeze([task(1), task(2), task(65)])
    for kept in ([task(1), task(65)], [task(65)], []):
        assert snapshots.freeze(kept).id == SnapshotStore(MemoryStore()).freeze(kept).id


# --- the ref to the newest


def test_the_newest_is_what_the_ref_names() -> None:
    store = MemoryStore()
    snapshots = SnapshotStore(store)
    assert (snapshots.latest(), snapshots.newest()) == (None, None)
    frozen = snapshots.freeze([task(1)])
    ref = replace(REF, snapshot=frozen.id)
    snapshots.set_latest(ref)
    reader = SnapshotStore(store)
    assert reader.latest() == ref
    assert reader.newest() == frozen


@pytest.mark.parametrize("how", ["the ref", "a shard", "the manifest is gone"])
def test_who_only_shows_the_newest_goes_without_where_it_is_damaged(how: str) -> None:
    store = MemoryStore()
    snapshots = SnapshotStore(store)
    frozen = snapshots.freeze([task(1)])
    snapshots.set_latest(replace(REF, snapshot=frozen.id))
    if how == "the manifest is gone":
        store.delete(manifest(frozen))
    else:
        store.put(LATEST if how == "the ref" else shards(store)[0], b"?")
    assert SnapshotStore(store).newest() is None


def test_a_damaged_ref_is_noted_until_it_is_written_again() -> None:
    store, damage = MemoryStore(), Damage()
    snapshots = SnapshotStore(store, damage)
    store.put(LATEST, b"?")
    with pytest.raises(CorruptObjectError):
        snapshots.latest()
    assert list(damage.keys("snapshots/")) == [LATEST]
    snapshots.set_latest(REF)
    assert list(damage.keys("snapshots/")) == []
    damage.note(LATEST, ValueError("as another process saw it"))
    assert snapshots.latest() == REF
    assert list(damage.keys("snapshots/")) == []


# --- what an older one held


def answer(number: int, created: str, updated: str) -> Annotation:
    return Annotation(number, created, updated, "cat")


def test_an_older_snapshot_is_told_from_a_newer_one() -> None:
    """Answers given, and last changed, until then; a time that nobody can read has not come yet."""
    noon = "2026-01-01T12:00:00Z"
    early, late = "2026-01-01T11:59:59.999999Z", "2026-01-01T12:00:00.000001Z"
    answers = {
        1: (answer(1, early, early),), 2: (answer(2, early, late),), 3: (answer(3, late, late),),
        4: (answer(4, noon, noon), answer(5, late, late)), 5: (answer(6, "soon", "soon"),),
        6: (answer(7, "2026-01-01T12:00:00", "2026-01-01T12:00:00"),),  # without a zone: UTC
    }  # fmt: skip
    newest = Snapshot("new", {i: Task(i, f"u{i}", late, kept) for i, kept in answers.items()})
    found = as_of(newest, noon)
    assert found.id == "new"
    assert {i: [a.id for a in t.annotations] for i, t in found.tasks.items()} == {1: [1], 4: [4], 6: [7]}
    given = as_of(newest, noon, changed=False)  # changed since, and yet given then
    assert {i: [a.id for a in t.annotations] for i, t in given.tasks.items()} == {1: [1], 2: [2], 4: [4], 6: [7]}
    assert as_of(newest, "when?").tasks == newest.tasks
