"""API keys as a process knows them: within seconds, from memory, and what an outage of the bucket does."""

from __future__ import annotations

import time

import pytest

from labelloop.errors import StorageError
from labelloop.objects.storage import MemoryStore
from labelloop.records.api_keys import ApiKey, Scope
from labelloop.rules.api_keys import KeyRefusal
from labelloop.store.api_keys import ApiKeyStore
from labelloop.web.known_keys import EVERY_S, NOT_READ, KnownKeys


class Outage(MemoryStore):
    away = False

    def list(self, prefix: str, *, start_after: str = ""):  # type: ignore[no-untyped-def]
        if self.away:
            raise StorageError("connection refused")
        return super().list(prefix, start_after=start_after)


def status(answer: ApiKey | KeyRefusal) -> int:
    return answer.status if isinstance(answer, KeyRefusal) else 200


@pytest.mark.parametrize(("form", "right"), [
    ("Bearer {}", True), ("bearer {}", True), ("Bearer  {} ", True), ("{}", False), ("Basic {}", False), ("", False),
    ("Bearer", False), ("Bearer {}x", False), ("Token {}", False), ("Bearer {} {}", False),
])  # fmt: skip
def test_only_a_bearer_is_heard(form: str, right: bool) -> None:
    store = ApiKeyStore(MemoryStore())
    whole = store.add("a", [Scope.READ], by="anna").whole
    known = KnownKeys(store)
    known.read()
    assert status(known.find(form.replace("{}", whole))) == (200 if right else 401)
    assert status(known.find(None)) == 401


def test_a_revocation_counts_within_seconds_without_a_word() -> None:
    bucket = MemoryStore()
    new = ApiKeyStore(bucket).add("a", [Scope.READ], by="anna")
    known = KnownKeys(ApiKeyStore(bucket), every_s=0.02)
    known.start()
    header = f"Bearer {new.whole}"
    try:
        until(lambda: status(known.find(header)) == 200)
        ApiKeyStore(bucket).revoke(new.record.id)
        until(lambda: status(known.find(header)) == 401)
    finally:
        known.stop()
    assert EVERY_S <= 2  # what the documents say


def test_while_the_bucket_is_away_the_last_copy_counts_and_then_none() -> None:
    bucket = Outage()
    store = ApiKeyStore(bucket)
    header = f"Bearer {store.add('a', [Scope.READ], by='anna').whole}"
    known = KnownKeys(store, stale_s=0.2)
    assert known.find(header) is NOT_READ  # nothing was read yet: again later, not 401
    known.read()
    bucket.away = True
    known.read()
    assert status(known.find(header)) == 200
    time.sleep(0.25)
    assert known.find(header) is NOT_READ
    bucket.away = False
    known.read()
    assert status(known.find(header)) == 200


def until(what) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + 5
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)
