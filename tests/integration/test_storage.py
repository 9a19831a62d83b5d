"""One contract, three stores: memory, a real S3 server, and a prefix of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread

import pytest

from labelloop.config.settings import load_settings
from labelloop.errors import AlreadyExistsError, CorruptObjectError, NotFoundError, StorageError
from labelloop.limits import RECORD
from labelloop.objects.s3_client import s3_client
from labelloop.objects.storage import MemoryStore, ObjectStore, S3Store, Within
from tests.integration.conftest import KEYS


def real(endpoint: str) -> ObjectStore:
    settings = load_settings({
        "LABELLOOP_S3_ENDPOINT": endpoint, **KEYS,
        "LABELLOOP_CACHE_DIR": str(Path("unused")),
    })  # fmt: skip
    client = s3_client(settings)
    bucket = f"test-{secrets.token_hex(4)}"
    client.create_bucket(Bucket=bucket)
    return S3Store(client, bucket)


KINDS: dict[str, Callable[[str], ObjectStore]] = {
    "memory": lambda _endpoint: MemoryStore(),
    "s3": real,
    "prefix": lambda endpoint: Within(real(endpoint), "projects/a"),
}


@pytest.fixture(params=sorted(KINDS))
def store(request: pytest.FixtureRequest, s3_endpoint: str) -> ObjectStore:
    return KINDS[request.param](s3_endpoint)


def test_what_is_put_is_got(store: ObjectStore) -> None:
    store.put("a/1", b"one")
    store.put("a/1", b"two")
    assert store.get("a/1") == b"two"
    assert store.exists("a/1")


def test_what_is_not_there_is_not_found(store: ObjectStore) -> None:
    assert not store.exists("nothing")
    with pytest.raises(NotFoundError):
        store.get("nothing")
    store.delete("nothing")


def test_the_etag_follows_the_bytes(store: ObjectStore) -> None:
    store.put("a", b"1")
    first = store.get_with_etag("a")[1]
    assert [info.etag for info in store.list("a")] == [first]
    store.put("a", b"2")
    assert store.get_with_etag("a")[1] != first


def test_a_conditional_write_never_replaces(store: ObjectStore) -> None:
    store.put("log/1", b"mine", if_absent=True)
    with pytest.raises(AlreadyExistsError):
        store.put("log/1", b"yours", if_absent=True)
    assert store.get("log/1") == b"mine"


def test_a_record_that_is_too_large_is_not_fetched(store: ObjectStore) -> None:
    key = "runs/1.json" if isinstance(store, Within) else "projects/a/runs/1.json"
    store.put(key, b" " * (RECORD + 1))
    for _ in range(12):  # more often than there are connections
        with pytest.raises(CorruptObjectError) as raised:
            store.get(key)
    assert raised.value.key == key
    store.put(key, b"{}")
    assert store.get(key) == b"{}"


def test_only_what_was_read_is_swapped(store: ObjectStore) -> None:
    store.put("run", b"running")
    etag = store.get_with_etag("run")[1]
    store.swap("run", b"failed", etag=etag)
    with pytest.raises(AlreadyExistsError):
        store.swap("run", b"promote", etag=etag)
    assert store.get("run") == b"failed"
    with pytest.raises(StorageError):
        store.swap("nothing", b"", etag=etag)


def test_listing_is_by_prefix_in_order_and_may_begin_later(store: ObjectStore) -> None:
    for i in (3, 1, 2):
        store.put(f"log/{i:04d}", b"x" * i)
    store.put("other", b"")
    assert [(o.key, o.size) for o in store.list("log/")] == [("log/0001", 1), ("log/0002", 2), ("log/0003", 3)]
    assert [o.key for o in store.list("log/", start_after="log/0002")] == ["log/0003"]
    assert next(store.list("log/", start_after="log/0000")).key == "log/0001"


def test_listing_goes_beyond_one_page(store: ObjectStore) -> None:
    for i in range(1005):
        store.put(f"many/{i:05d}", b"")
    assert sum(1 for _ in store.list("many/")) == 1005


def test_one_of_many_conditional_writers_wins(store: ObjectStore) -> None:
    barrier, won = Barrier(8), []

    def write(number: int) -> None:
        barrier.wait()
        try:
            store.put("one", b"%d" % number, if_absent=True)
            won.append(number)
        except AlreadyExistsError:
            pass

    threads = [Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("one") in {b"%d" % n for n in won}


def test_an_unreachable_server_is_a_storage_error_that_names_the_object() -> None:
    settings = load_settings({"LABELLOOP_S3_ENDPOINT": "http://127.0.0.1:9", "LABELLOOP_S3_ACCESS_KEY": "a",
                              "LABELLOOP_S3_SECRET_KEY": "b"})  # fmt: skip
    with pytest.raises(StorageError, match="s3://bucket/key"):
        S3Store(s3_client(settings), "bucket").get("key")
