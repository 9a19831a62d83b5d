"""Images from elsewhere: which are copied, how they are read, and what becomes of those that cannot be had."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from labelloop.errors import ImageUnreadableError, SourceAwayError, StorageError
from labelloop.images.mirror import CopySource, Mirror, MirroredImage, MirroredReader, NotCopiedError, source_of
from labelloop.objects.storage import MemoryStore
from labelloop.records.json import digest
from sync.images import mirror as module
from sync.images.mirror import Mirroring
from sync.images.web import Fetched

UPLOAD = "/data/upload/3/0f1e2d3c-cat.png"
WEB = "https://images.example.com/a.png"


@pytest.mark.parametrize(
    ("uri", "source"),
    [
        (UPLOAD, CopySource.STUDIO),
        ("/data/upload/3/a%20b.png", CopySource.STUDIO),
        ("/data/local-files/?d=cats/1.png", CopySource.STUDIO),
        ("/storage-data/uploaded/?filepath=upload/1/a.png", CopySource.STUDIO),
        ("/tasks/17/resolve/?fileuri=Z3M6Ly9iL2EucG5n", CopySource.STUDIO),
        (WEB, CopySource.WEB),
        ("HTTP://images.example.com/a.png", CopySource.WEB),
        ("s3://images/a.png", None),
        ("gs://images/a.png", None),
        ("/data/upload/3/../../etc/passwd", None),
        ("/data/upload/3/..", None),
        ("/data/upload/3/..%2F..%2Fapi%2Ftoken", None),
        ("/data/upload/3/%252e%252e%252Fapi", None),
        ("/data/upload/3/..%5Capi", None),
        ("/data/upload/3/a..png", CopySource.STUDIO),
        ("/data/upload/3/", None),
        ("/api/users/", None),
        ("/tasks/17/", None),
        ("/data/export/1/a.json", None),
        ("/data/local-files/?d=a#b", None),
        ("data:image/png;base64,AAAA", None),
        ("", None),
    ],
)
def test_what_is_copied_and_from_where(uri: str, source: CopySource | None) -> None:
    assert source_of(uri) is source


def test_a_copy_is_read_by_anybody_and_named_by_its_content() -> None:
    store = MemoryStore()
    mirror = Mirror(store)
    mirror.record([mirror.keep(UPLOAD, b"bytes", etag="e", modified="m"), mirror.keep(WEB, b"bytes")])
    other = Mirror(store)
    assert other.read(UPLOAD) == (b"bytes", digest(b"bytes"))
    assert [i.key for i in store.list("mirror/") if "index" not in i.key] == [f"mirror/{digest(b'bytes')}"]
    copy = other.copies[UPLOAD]
    assert (copy.uri, copy.size, copy.etag, copy.modified) == (UPLOAD, 5, "e", "m")


def test_what_is_not_copied_changed_or_gone_is_unreadable_in_words() -> None:
    store = MemoryStore()
    mirror = Mirror(store)
    with pytest.raises(NotCopiedError, match="not copied to S3 yet"):
        mirror.read(UPLOAD)
    mirror.record([mirror.keep(UPLOAD, b"bytes")])
    store.put(f"mirror/{digest(b'bytes')}", b"other")
    with pytest.raises(ImageUnreadableError, match="was changed"):
        mirror.read(UPLOAD)
    store.delete(f"mirror/{digest(b'bytes')}")
    with pytest.raises(ImageUnreadableError, match="is gone"):
        mirror.read(UPLOAD)


def test_a_problem_is_told_until_a_copy_comes() -> None:
    store = MemoryStore()
    writer, reader = Mirror(store), Mirror(store)
    writer.record([MirroredImage(WEB, "2026-01-01", problem="it does not exist")])
    with pytest.raises(ImageUnreadableError, match="it does not exist"):
        reader.read(WEB)
    writer.record([writer.keep(WEB, b"bytes")])
    assert reader.read(WEB)[0] == b"bytes"


def test_the_lists_are_not_read_again_for_every_missing_image() -> None:
    store = MemoryStore()
    reader = Mirror(store, every_s=1000)
    assert reader.find(UPLOAD) is None
    writer = Mirror(store)
    writer.record([writer.keep(UPLOAD, b"bytes")])
    assert reader.find(UPLOAD) is None
    reader.update()
    assert reader.find(UPLOAD) is not None


class Direct:
    """A reader of S3."""

    def read(self, uri: str) -> tuple[bytes, str]:
        return uri.encode(), "direct"


def test_s3_is_read_directly_and_the_rest_from_copies() -> None:
    mirror = Mirror(MemoryStore())
    mirror.record([mirror.keep(UPLOAD, b"bytes")])
    reader = MirroredReader(Direct(), mirror)
    assert reader.read("s3://images/a.png")[1] == "direct"
    assert reader.read(UPLOAD)[0] == b"bytes"
    assert reader.read("gs://images/a.png")[1] == "direct"  # where it is refused in words


# --- the watcher's side


class World:
    """A source whose answers the test decides, and a clock."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.moment = 1000.0
        self.answers: dict[str, bytes | Exception] = {}
        self.asked: list[str] = []
        self.mirroring = Mirroring(Mirror(self.store), self.fetch, clock=lambda: self.moment)

    def fetch(self, uri: str) -> Fetched:
        self.asked.append(uri)
        answer = self.answers[uri]
        if isinstance(answer, Exception):
            raise answer
        return Fetched(answer)

    def settle(self) -> set[str]:
        """Turn until no thread works; what became ready."""
        copied = self.mirroring.turn()
        until(lambda: self.mirroring._threads == 0)
        return copied | self.mirroring.turn()


class Away(MemoryStore):
    """A bucket that does not take lists."""

    away = True

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        if self.away and "index" in key:
            raise StorageError("away")
        super().put(key, data, if_absent=if_absent)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_an_image_is_copied_once_and_then_ready() -> None:
    world = World()
    world.answers = {UPLOAD: b"one", WEB: b"two"}
    assert world.mirroring.ready("s3://images/a.png")
    assert not world.mirroring.ready(UPLOAD)
    assert not world.mirroring.ready(WEB)
    assert world.mirroring.state.waiting == 2
    assert world.settle() == {UPLOAD, WEB}
    assert world.mirroring.ready(UPLOAD)
    assert world.mirroring.turn() == set()
    assert sorted(world.asked) == sorted([UPLOAD, WEB])
    assert (world.mirroring.state.copied, world.mirroring.state.waiting) == (2, 0)
    after = World(world.store)
    after.mirroring.turn()
    assert after.mirroring.ready(UPLOAD)
    assert after.mirroring.state.copied == 2
    assert after.asked == []


def test_many_images_are_copied_in_few_lists() -> None:
    world = World()
    world.answers = {f"/data/upload/1/{i}.png": str(i).encode() for i in range(200)}
    assert not any(world.mirroring.ready(uri) for uri in world.answers)
    assert world.settle() == set(world.answers)
    assert len(list(world.store.list("mirror/index/"))) < 20


def test_a_source_that_is_away_is_asked_again_at_growing_intervals_and_told_of_at_last() -> None:
    world = World()
    world.answers = {WEB: SourceAwayError("its server answers 503")}
    waits = []
    world.mirroring.ready(WEB)
    for _ in range(module.PATIENCE):
        assert not world.mirroring.ready(WEB)
        before = len(world.asked)
        began = world.moment
        while len(world.asked) == before:
            world.settle()
            world.moment += 1
        waits.append(world.moment - began)
    assert waits == sorted(waits)
    assert world.mirroring.state.failed == 1
    assert world.mirroring.state.problem == "its server answers 503"
    assert world.mirroring.ready(WEB)  # so that a worker records why it cannot be read
    world.answers = {WEB: b"back"}
    world.moment += module.RETRY_CAP_S
    assert WEB in world.settle()
    assert world.mirroring.state == module.MirrorState(copied=1)


def test_a_refusal_is_told_at_once_and_tried_again_much_later() -> None:
    world = World()
    world.answers = {WEB: ImageUnreadableError("not allowed; add it to LABELLOOP_IMAGE_HOSTS")}
    world.mirroring.ready(WEB)
    assert world.settle() == {WEB}
    assert world.mirroring.ready(WEB)
    assert world.mirroring.state.failed == 1
    world.moment += 60
    world.settle()
    assert len(world.asked) == 1
    world.moment += 86400
    world.settle()
    assert len(world.asked) == 2


def test_a_surprise_stops_nobody_else() -> None:
    world = World()
    world.answers = {WEB: ZeroDivisionError(), UPLOAD: b"one"}
    world.mirroring.ready(WEB)
    world.mirroring.ready(UPLOAD)
    assert world.settle() == {UPLOAD}
    assert world.mirroring.state.waiting == 1


def test_what_no_task_shows_any_more_is_not_asked_for() -> None:
    world = World()
    world.answers = {WEB: SourceAwayError("away")}
    world.mirroring.ready(WEB)
    world.settle()
    world.mirroring.forget(WEB)
    world.moment += 10_000
    world.settle()
    assert len(world.asked) == 1
    assert world.mirroring.state == module.MirrorState()


def test_copies_wait_for_a_bucket_that_is_away() -> None:
    store = Away()
    world = World(store)
    world.answers = {UPLOAD: b"one"}
    world.mirroring.ready(UPLOAD)
    assert world.settle() == set()
    store.away = False
    world.moment += 2
    ready: set[str] = set()
    until(lambda: ready.update(world.settle()) or bool(ready))  # the thread of the last turn may still see it away
    assert ready == {UPLOAD}
    assert world.asked == [UPLOAD]


def test_without_a_fetcher_nothing_is_waited_for() -> None:
    assert Mirroring(Mirror(MemoryStore()), None).ready(UPLOAD)
