"""Snapshots: content-addressed, k changes rewrite k shards at most, corruption is seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labelloop.errors import CorruptArtefactError, NotFoundError
from labelloop.records import Annotation, Seen, Task
from labelloop.snapshot import SnapshotStore
from labelloop.storage import MemoryStore


def task(number: int, label: str | None = "cat", **changes: object) -> Task:
    annotation = Annotation(
        number * 10, f"2026-01-01T00:00:{number % 60:02d}.000000Z", "2026-01-01T00:00:00.000000Z", label
    )
    return Task(number, f"s3://images/{number}.png", annotation.updated_at, (replace(annotation, **changes),))  # type: ignore[arg-type]


def written(store: MemoryStore) -> set[str]:
    return {info.key for info in store.list("snapshots/")}


def test_same_annotations_give_the_same_snapshot_whatever_the_order() -> None:
    tasks = [task(i) for i in range(100)]
    one = SnapshotStore(MemoryStore()).freeze(tasks)
    other = SnapshotStore(MemoryStore()).freeze(reversed(tasks))
    assert one.id == other.id


def test_what_is_loaded_is_what_was_frozen() -> None:
    store = MemoryStore()
    tasks = [task(1, seen=Seen("v3", "dog", blind=True), lead_time_s=1.5), task(2, None, cancelled=True)]
    frozen = SnapshotStore(store).freeze(tasks)
    loaded = SnapshotStore(store).load(frozen.id)
    assert loaded.tasks == {t.id: t for t in tasks}
    assert loaded.labels() == {"s3://images/1.png": "cat"}


def test_one_change_writes_one_shard_and_one_manifest() -> None:
    store = MemoryStore()
    snapshots = SnapshotStore(store)
    tasks = [task(i) for i in range(500)]
    snapshots.freeze(tasks)
    before = written(store)
    snapshots.freeze([*tasks[:-1], task(499, "dog")])
    assert len(written(store) - before) == 2


def test_nothing_changed_writes_nothing() -> None:
    store = MemoryStore()
    snapshots = SnapshotStore(store)
    snapshots.freeze([task(1)])
    before = written(store)
    assert snapshots.freeze([task(1)]).tasks == {1: task(1)}
    assert written(store) == before


def test_a_task_without_annotations_is_left_out() -> None:
    frozen = SnapshotStore(MemoryStore()).freeze([task(1), replace(task(2), annotations=())])
    assert set(frozen.tasks) == {1}


@pytest.mark.parametrize("kind", ["shards", "manifests"])
def test_a_changed_object_is_never_believed(kind: str) -> None:
    store = MemoryStore()
    name = SnapshotStore(store).freeze([task(1)]).id
    key = next(k for k in written(store) if kind in k)
    store.put(key, b"{}")
    with pytest.raises(CorruptArtefactError):
        SnapshotStore(store).load(name)


def test_an_unknown_snapshot_is_not_found() -> None:
    with pytest.raises(NotFoundError):
        SnapshotStore(MemoryStore()).load("0" * 32)


def test_the_newest_answer_counts_a_skip_never_outranks_a_label() -> None:
    old = Annotation(1, "a", "2026-01-01T00:00:01.000000Z", "cat")
    new = Annotation(2, "b", "2026-01-01T00:00:02.000000Z", "dog")
    skip = Annotation(3, "c", "2026-01-01T00:00:03.000000Z", None, cancelled=True)
    both = Task(1, "u", "t", (old, new, skip))
    assert both.label == "dog"
    assert replace(both, annotations=(old, skip)).label == "cat"
    assert replace(both, annotations=(skip,)).label is None
    assert replace(both, annotations=(skip,)).skipped


@pytest.mark.parametrize("kind", ["shards", "manifests"])
def test_a_damaged_object_is_written_again_by_the_next_freeze(kind: str) -> None:
    store = MemoryStore()
    name = SnapshotStore(store).freeze([task(1)]).id
    store.put(next(k for k in written(store) if kind in k), b"{}")
    snapshots = SnapshotStore(store)
    with pytest.raises(CorruptArtefactError):
        snapshots.load(name)
    snapshots.freeze([task(1)])
    assert SnapshotStore(store).load(name).tasks == {1: task(1)}
