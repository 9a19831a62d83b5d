"""Snapshots: content-addressed, k changes rewrite k shards at most, corruption is seen."""

from __future__ import annotations

import gzip
import random
from dataclasses import replace

import pytest

from labelloop.errors import CorruptArtefactError, CorruptObjectError, NotFoundError, StorageError
from labelloop.objects.storage import MemoryStore
from labelloop.records.tasks import Annotation, Seen, Task
from labelloop.store.snapshots import SnapshotStore


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


def test_labels_that_somebody_changed_in_a_shard_are_never_believed() -> None:
    """Well-formed and readable: only its hash tells."""
    store = MemoryStore()
    name = SnapshotStore(store).freeze([task(1), task(257)]).id
    key = next(k for k in written(store) if "shards" in k)
    changed = gzip.decompress(store.get(key)).replace(b'"cat"', b'"dog"')
    store.put(key, gzip.compress(changed))
    with pytest.raises(CorruptObjectError, match="changed after it was written"):
        SnapshotStore(store).load(name)


def test_another_manifest_under_its_name_is_never_believed() -> None:
    store = MemoryStore()
    snapshots = SnapshotStore(store)
    name, other = snapshots.freeze([task(1)]).id, snapshots.freeze([task(1, "dog")]).id
    store.put(f"snapshots/manifests/{name}.json", store.get(f"snapshots/manifests/{other}.json"))
    with pytest.raises(CorruptObjectError, match="changed after it was written"):
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


@pytest.mark.parametrize("seed", range(10))
def test_what_moved_alone_gives_the_snapshot_of_everything(seed: int) -> None:
    chance, store = random.Random(seed), MemoryStore()
    steps = SnapshotStore(store)
    tasks = {i: task(i) for i in range(150)}
    steps.freeze(tasks.values())
    for _ in range(30):
        moved = set()
        for number in chance.sample(range(200), chance.randrange(4)):
            moved.add(number)
            what = chance.random()
            if what < 0.3:
                tasks.pop(number, None)
            else:
                tasks[number] = task(number, "dog" if what < 0.6 else "cat")
        snapshot = steps.advance(tasks, moved)
        whole = SnapshotStore(MemoryStore()).freeze(tasks.values())
        assert (snapshot.id, snapshot.tasks) == (whole.id, whole.tasks)
        assert SnapshotStore(store).load(snapshot.id).tasks == tasks


def test_a_freeze_writes_and_reads_as_little_as_has_moved() -> None:
    store = Counting()
    snapshots = SnapshotStore(store)
    tasks = {i: task(i) for i in range(2000)}
    snapshots.freeze(tasks.values())
    store.asked = 0
    tasks[7] = task(7, "dog")
    snapshots.advance(tasks, {7})
    assert store.asked == 4  # one shard and the manifest: looked for, written


def test_a_snapshot_does_not_change_as_the_next_is_made() -> None:
    snapshots = SnapshotStore(MemoryStore())
    tasks = {1: task(1)}
    first = snapshots.freeze(tasks.values())
    tasks[1] = task(1, "dog")
    snapshots.advance(tasks, {1})
    assert first.tasks == {1: task(1)}


def test_a_freeze_that_broke_off_is_made_good_by_the_next() -> None:
    store = Counting()
    snapshots = SnapshotStore(store)
    tasks = {i: task(i) for i in range(100)}
    snapshots.freeze(tasks.values())
    del tasks[3]
    store.fails_at = store.asked + 3
    with pytest.raises(StorageError):
        snapshots.advance(tasks, {3})
    del tasks[4]
    assert snapshots.advance(tasks, {3, 4}).id == SnapshotStore(MemoryStore()).freeze(tasks.values()).id


class Counting(MemoryStore):
    """Counts requests; one of them may fail."""

    asked = 0
    fails_at = -1

    def exists(self, key: str) -> bool:
        self._count()
        return super().exists(key)

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        self._count()
        super().put(key, data, if_absent=if_absent)

    def _count(self) -> None:
        self.asked += 1
        if self.asked == self.fails_at:
            raise StorageError("away")
