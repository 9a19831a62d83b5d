"""Images in: what is missing is asked for, once; only what changed is looked at."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelloop.errors import ImageUnreadableError, StorageError
from labelloop.images.mirror import Mirror
from labelloop.images.reader import REASONS, ImageListing
from labelloop.objects.storage import MemoryStore, ObjectInfo
from labelloop.queue.jobs import JobKind
from labelloop.records.images import ImageFacts
from labelloop.store.catalogue import Catalogue
from labelloop.store.features import FeatureIndex, FeatureStore
from sync.answers.task_index import TaskIndex
from sync.images.imports import Imports
from sync.images.listing import Lister
from sync.images.mirror import Mirroring
from sync.images.pool import ACTIVE_JOBS, CHUNK, ImagePool
from sync.images.waiting import RETRY_S, Waiting
from sync.images.web import Fetched


class FakeQueue:
    def __init__(self) -> None:
        self.jobs: dict[str, list[str]] = {}

    def enqueue(self, _kind: JobKind, job_id: str, payload: Mapping[str, Any]) -> bool:
        return self.jobs.setdefault(job_id, payload["uris"]) is payload["uris"]

    def active(self, _kind: JobKind, _project: str) -> list[str]:
        return list(self.jobs)


class World:
    """A bucket, its tasks, and a worker that does what is queued."""

    def __init__(self, tmp: Path) -> None:
        self.store, self.queue, self.task_index = MemoryStore(), FakeQueue(), TaskIndex()
        self.bucket: dict[str, str] = {}
        self.deleted: set[str] = set()
        self.refused: set[str] = set()  # by Label Studio's own filter
        self.imports = self.shards = 0
        self.catalogue = Catalogue(self.store)
        self.index = FeatureIndex(self.store, "b")
        self.features = FeatureStore(self.store, "b", tmp)
        self.pool = ImagePool("p", lambda: list(self.bucket.items()), self._import, self.queue)  # type: ignore[arg-type]
        self.pool._lister = Lister(lambda: list(self.bucket.items()), start=lambda run: run())

    def turn(self, *, listed: bool = True) -> None:
        if listed:
            self.pool._lister._again_at = float("-inf")
            self.pool.turn(self.task_index, self.catalogue, self.index, deleted=self.deleted)
        self.pool.turn(self.task_index, self.catalogue, self.index, deleted=self.deleted)
        self.pool._importing.join()

    def work(self, *, broken: frozenset[str] = frozenset()) -> None:
        for uris in self.queue.jobs.values():
            good = [u for u in uris if u not in broken]
            self.record(good)
            self.catalogue.add(
                [ImageFacts(u, self.etag(u), problem="no image") for u in uris if u in broken], self.name()
            )
        self.queue.jobs.clear()

    def record(self, uris: list[str]) -> None:
        if uris:
            rows = np.zeros((len(uris), 2), dtype=np.float32)
            self.features.add(self.name(), uris, [self.etag(u) for u in uris], rows)
            self.catalogue.add([ImageFacts(u, self.etag(u), u, u) for u in uris], self.name())

    def etag(self, uri: str) -> str:
        return self.bucket.get(uri, "other")

    def name(self) -> str:
        self.shards += 1
        return f"{self.shards:04d}"

    def asked(self) -> set[str]:
        return {u for uris in self.queue.jobs.values() for u in uris}

    def _import(self, new: Set[str]) -> None:
        self.new = set(new)
        self.imports += 1
        for number, uri in enumerate(self.bucket):
            if uri not in self.deleted and uri not in self.refused:
                self.task_index.put(number, uri, answered=False)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def uris(count: int) -> list[str]:
    return [f"s3://images/{i:04d}.png" for i in range(count)]


def test_every_image_is_asked_for_once_and_counted_as_it_comes_back(world: World) -> None:
    world.bucket = dict.fromkeys(uris(100), "e")
    world.turn()
    assert world.asked() == set(world.bucket)
    assert (world.pool.state.images, world.pool.state.missing) == (100, 100)
    assert not world.pool.settled
    world.work(broken=frozenset(uris(2)))
    world.turn(listed=False)
    assert world.queue.jobs == {}
    assert (world.pool.state.featurised, world.pool.state.unreadable, world.pool.state.missing) == (98, 2, 0)
    assert world.pool.settled


def test_only_so_many_jobs_wait_at_once(world: World) -> None:
    world.bucket = dict.fromkeys(uris((ACTIVE_JOBS + 3) * CHUNK), "e")
    world.turn()
    assert len(world.queue.jobs) == ACTIVE_JOBS
    world.work()
    world.turn(listed=False)
    assert len(world.queue.jobs) == 3
    assert world.asked().isdisjoint(world.index.places)


def test_an_image_with_new_bytes_is_asked_for_again(world: World) -> None:
    world.bucket = dict.fromkeys(uris(3), "e")
    world.turn()
    world.work()
    world.turn()
    assert world.asked() == set()
    world.bucket[uris(1)[0]] = "new"
    world.turn()
    assert world.asked() == {uris(1)[0]}


def test_an_image_that_is_only_named_by_a_task_counts_and_goes_with_it(world: World) -> None:
    world.task_index.put(7, "s3://elsewhere/x.png", answered=False)
    world.turn()
    assert world.asked() == {"s3://elsewhere/x.png"}
    world.task_index.remove(7)
    world.turn()
    assert world.pool.state.images == 0


def test_new_images_become_tasks_but_deleted_ones_alone_do_not(world: World) -> None:
    world.bucket = dict.fromkeys(uris(2), "e")
    world.turn()
    assert world.imports == 1
    world.turn()
    assert world.imports == 1
    world.task_index.remove(0)
    world.deleted = {uris(1)[0]}
    world.turn()
    assert world.imports == 1
    world.bucket["s3://images/new.png"] = "e"
    world.turn()
    assert world.imports == 2


def test_images_that_leave_the_bucket_leave_the_pool(world: World) -> None:
    world.bucket = dict.fromkeys(uris(4), "e")
    world.pool._importing._run = lambda _new: True
    world.turn()
    world.bucket = dict.fromkeys(uris(3), "e")
    world.turn()
    assert world.pool.state.images == 3


def test_another_backbone_has_no_features_yet(world: World) -> None:
    world.bucket = dict.fromkeys(uris(3), "e")
    world.turn()
    world.work()
    world.turn()
    assert world.pool.state.missing == 0
    world.index = FeatureIndex(world.store, "other")
    world.turn()
    assert world.pool.state.missing == 3


def test_what_an_error_interrupts_is_done_by_the_next_turn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.bucket = dict.fromkeys(uris(5), "e")
    world.turn()
    world.work()
    update = FeatureIndex.updates
    monkeypatch.setattr(FeatureIndex, "updates", _failing)
    with pytest.raises(StorageError):
        world.turn(listed=False)
    monkeypatch.setattr(FeatureIndex, "updates", update)
    world.turn(listed=False)
    assert world.pool.state.missing == 0


def _failing(_self: FeatureIndex) -> Iterator[set[str]]:
    raise StorageError("away")
    yield set()


def test_a_turn_without_changes_looks_at_no_image(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.bucket = dict.fromkeys(uris(50), "e")
    world.turn()
    world.work()
    world.turn()
    judged: list[str] = []
    monkeypatch.setattr(ImagePool, "_judge", lambda _self, uri, *_: judged.append(uri))
    world.turn(listed=False)
    world.turn()
    assert judged == []


def test_what_label_studio_does_not_take_is_offered_once_and_told(world: World) -> None:
    world.bucket = dict.fromkeys(uris(3), "e")
    world.refused = {uris(3)[1]}
    for _ in range(6):
        world.turn()
    assert world.imports == 1
    assert (world.pool.state.refused, world.pool.state.refused_one) == (1, uris(3)[1])
    assert world.pool.problem is None
    world.bucket[uris(4)[3]] = "e"  # now something has changed
    for _ in range(3):
        world.turn()
    assert world.imports == 2
    world.bucket[uris(3)[1]] = "other bytes"  # so it may be taken now
    world.refused.clear()
    for _ in range(3):
        world.turn()
    assert (world.imports, world.pool.state.refused) == (3, 0)


def test_a_storage_sync_that_fails_is_tried_again_later_and_later() -> None:
    now, calls = [0.0], []

    def run(_new: Set[str]) -> bool:
        calls.append(now[0])
        if len(calls) < 4:
            raise StorageError("away")
        return True

    imports = Imports(run, clock=lambda: now[0])
    while now[0] < 500:
        imports.offer({"a"})
        imports.join()
        now[0] += 5
    assert calls == [0, 10, 30, 70]
    assert imports.problem is None


def test_a_storage_sync_that_label_studio_queues_is_asked_for_a_few_times() -> None:
    now, calls = [0.0], []

    def run(_new: Set[str]) -> bool:
        calls.append(now[0])
        return False

    imports = Imports(run, clock=lambda: now[0])
    while now[0] < 10_000:
        imports.offer({"a"})
        imports.join()
        now[0] += 15
    assert len(calls) == 5
    assert imports.refused({"a", "b"}) == {"a"}


def test_objects_that_are_no_images_are_counted_by_reason() -> None:
    odd = ["p/a\nb.png", "p/\udcff.png", "p/../x.png", "p/a?.png"]
    keys = ["p/a.png", "p/b.JFIF", "p/c", "p/d.csv", "p/e.csv", "p/", "p/a b#%2f.png", *odd]
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    listing = ImageListing([ObjectInfo(key, 1, "e", moment) for key in keys], "images")
    lister = Lister(lambda: listing, start=lambda run: run())
    lister.take()
    found = lister.take()
    assert found is not None
    assert set(found.changed) == {"s3://images/p/a.png", "s3://images/p/a b#%2f.png"}
    told = {why: (one.count, one.example) for why, one in lister.left_out.items()}
    assert told["its name ends in .csv"] == (2, "p/d.csv")
    assert told["its name has no ending"] == (1, "p/c")
    assert sum(count for count, _ in told.values()) == len(keys) - 3
    assert len(told) <= REASONS + 1


def test_a_bucket_that_cannot_be_listed_is_a_visible_problem(world: World) -> None:
    def away() -> list[tuple[str, str]]:
        raise StorageError("away")

    world.pool._lister = Lister(away, start=lambda run: run())
    world.turn()
    assert "away" in str(world.pool.problem)
    assert not world.pool.settled


def test_a_failed_job_is_asked_for_again_later_and_later() -> None:
    now = [0.0]
    waiting = Waiting(lambda: now[0])
    for uri in ("b", "a"):
        waiting.put(uri, waits=True)
    assert waiting.take(5, ()) == ["a", "b"]
    waiting.asked(["a", "b"], "job")
    waiting.put("b", waits=False)
    assert waiting.take(5, ()) == []
    for pause in (2 * RETRY_S, 4 * RETRY_S, 8 * RETRY_S):
        now[0] += pause
        assert waiting.take(5, ()) == []
        now[0] += 0.1
        assert waiting.take(5, ["job"]) == []  # it still runs
        now[0] += RETRY_S + 0.1
        assert waiting.take(5, ()) == ["a"]
        waiting.asked(["a"], "job")


def test_a_large_bucket_is_listed_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("sync.images.listing.time.monotonic", lambda: now[0])

    def slow() -> Iterator[tuple[str, str]]:
        now[0] += 4
        yield "s3://images/1.png", "e"

    runs: list[Callable[[], None]] = []
    lister = Lister(slow, start=runs.append)
    assert lister.take() is None
    runs.pop()()
    found = lister.take()
    assert found is not None
    assert found.changed == {"s3://images/1.png": "e"}
    now[0] += 46  # after one slow listing alone, soon again
    lister.take()
    runs.pop()()
    lister.take()
    now[0] += 79
    lister.take()
    assert runs == []
    now[0] += 2
    lister.take()
    assert len(runs) == 1


def test_the_board_follows_answers_changes_and_deletes() -> None:
    task_index = TaskIndex()
    task_index.put(1, "a", answered=False)
    task_index.put(2, "a", answered=False)
    task_index.put(3, "", answered=False)
    assert (task_index.tasks_of, task_index.open, len(task_index)) == ({"a": (1, 2)}, {"a": (1, 2)}, 3)
    assert task_index.put(1, "a", answered=True) == ""
    assert task_index.open == {"a": (2,)}
    assert task_index.put(1, "a", answered=False) == ""
    assert task_index.put(2, "b", answered=True) == ""
    assert (task_index.tasks_of, task_index.open) == ({"a": (1,), "b": (2,)}, {"a": (1,)})
    assert task_index.take_changed() == {"a", "b"}
    assert task_index.put(1, "c", answered=False) == "a"
    assert task_index.remove(2) == "b"
    assert task_index.remove(2) == ""
    assert task_index.take_changed() == {"a", "b", "c"}
    assert task_index.take_changed() == set()


def test_images_from_elsewhere_wait_for_their_copy_and_are_counted_meanwhile(world: World) -> None:
    upload, fetched = "/data/upload/1/a.png", threading.Event()

    def fetch(_uri: str) -> Fetched:
        fetched.wait(5)
        return Fetched(b"bytes")

    world.pool._mirroring = Mirroring(Mirror(world.store), fetch)
    world.task_index.put(7, upload, answered=False)
    world.bucket = dict.fromkeys(uris(1), "e")
    world.turn()
    assert world.asked() == set(uris(1))
    assert (world.pool.state.images, world.pool.state.missing) == (2, 2)
    assert not world.pool.settled
    fetched.set()
    end = time.monotonic() + 10
    while upload not in world.asked():
        world.turn()
        assert time.monotonic() < end
    world.work()
    world.turn()
    assert world.pool.state.missing == 0


def test_an_image_that_cannot_be_copied_is_left_to_a_worker_to_record(world: World) -> None:
    url = "https://images.example.com/a.png"

    def refuse(_uri: str) -> Fetched:
        raise ImageUnreadableError("not allowed")

    world.pool._mirroring = Mirroring(Mirror(world.store), refuse)
    world.task_index.put(7, url, answered=False)
    end = time.monotonic() + 10
    while url not in world.asked():
        world.turn()
        assert time.monotonic() < end
    world.work(broken=frozenset({url}))
    world.turn()
    assert (world.pool.state.unreadable, world.pool.state.missing) == (1, 0)
    assert world.pool._mirroring.state.problem == "not allowed"
    world.task_index.remove(7)
    world.turn()
    assert world.pool._mirroring.state.failed == 0


def test_images_without_a_bucket_wait_and_are_decided_where_the_rest_does_not_come(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.bucket = dict.fromkeys(uris(3), "e")
    world.turn()
    world.queue.jobs.clear()
    world.record(uris(3))
    world.catalogue.add([ImageFacts(u, "e", u) for u in uris(3)], world.name())
    world.turn(listed=False)
    assert (world.pool.state.undecided, world.pool.state.featurised, world.pool.settled) == (3, 0, False)
    assert world.queue.jobs == {}
    monkeypatch.setattr("sync.images.pool.DECIDE_AFTER_S", -1.0)
    world.turn(listed=False)
    assert list(world.queue.jobs.values()) == [[uris(3)[0]]]  # nothing to read: only a decision is missing
    world.queue.jobs.clear()
    world.catalogue.add([ImageFacts(u, "e", u, u) for u in uris(3)], world.name())
    world.turn(listed=False)
    assert (world.pool.state.undecided, world.pool.settled) == (0, True)
    assert world.queue.jobs == {}


def test_an_image_whose_task_says_where_it_stands_waits_for_the_task(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps neither the order of the others nor a worker busy."""
    monkeypatch.setattr("sync.images.pool.DECIDE_AFTER_S", -1.0)
    world.pool._by_task = True
    world.bucket = dict.fromkeys(uris(3), "e")
    world.refused = {uris(3)[2]}
    world.turn()
    world.queue.jobs.clear()
    world.record(uris(3))
    world.catalogue.add([ImageFacts(u, "e", u, u if u in uris(2) else "") for u in uris(3)], world.name())
    world.turn(listed=False)
    assert world.queue.jobs == {}
    assert (world.pool.state.undecided, world.pool.state.featurised, world.pool.settled) == (1, 3, True)
    world.task_index.put(7, uris(3)[2], answered=False)
    world.turn(listed=False)
    assert list(world.queue.jobs.values()) == [[uris(3)[2]]]
    assert (world.pool.state.undecided, world.pool.state.featurised, world.pool.settled) == (1, 2, False)
