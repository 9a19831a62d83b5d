"""API keys in the bucket: what is kept, what is changed, what is damaged."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from labelloop.errors import AlreadyExistsError, LabelloopError, NotFoundError
from labelloop.objects.storage import MemoryStore
from labelloop.records.api_keys import Scope
from labelloop.rules.api_keys import parts_of, refusal
from labelloop.store import api_keys
from labelloop.store.api_keys import ApiKeyStore


def counts(store: ApiKeyStore, whole: str) -> bool:
    parts = parts_of(whole)
    assert parts is not None
    return refusal(store.get(parts[0]), parts[1], datetime.now(UTC)) is None


def test_a_secret_is_never_kept() -> None:
    bucket = MemoryStore()
    new = ApiKeyStore(bucket).add("camera", [Scope.PREDICT], by="anna")
    rotated = ApiKeyStore(bucket).rotate(new.record.id, keep_hours=1)
    (info,) = bucket.list("")
    kept = bucket.get(info.key).decode()
    for whole in (new.whole, rotated.whole):
        assert whole.rpartition("_")[2] not in kept


def test_made_rotated_revoked_removed() -> None:
    store = ApiKeyStore(MemoryStore())
    first = store.add("camera", [Scope.APPROVE, Scope.READ], by="anna", project="main-1-0", days=2)
    assert first.record.scopes == (Scope.READ, Scope.APPROVE)
    assert counts(store, first.whole)
    second = store.rotate(first.record.id, keep_hours=1)
    assert counts(store, first.whole)  # for an hour more
    assert counts(store, second.whole)
    third = store.rotate(first.record.id, keep_hours=0)
    assert [counts(store, key.whole) for key in (first, second, third)] == [False, False, True]
    revoked = store.revoke(first.record.id)
    assert not counts(store, third.whole)
    assert store.revoke(first.record.id) == revoked  # the first time counts
    with pytest.raises(LabelloopError, match="revoked"):
        store.rotate(first.record.id, keep_hours=1)
    assert [key.id for key in store.all()] == [first.record.id]
    store.remove(first.record.id)
    assert store.all() == []
    for act in (store.revoke, store.remove, store.get):
        with pytest.raises(NotFoundError, match="labelloop keys list"):
            act(first.record.id)


def test_a_revocation_is_not_lost_to_a_rotation_at_the_same_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = MemoryStore()
    store = ApiKeyStore(bucket)
    key = store.add("camera", [Scope.READ], by="anna").record
    swap = bucket.swap

    def overtaken(name: str, data: bytes, *, etag: str) -> None:
        monkeypatch.setattr(bucket, "swap", swap)
        ApiKeyStore(bucket).revoke(key.id)
        swap(name, data, etag=etag)

    monkeypatch.setattr(bucket, "swap", overtaken)
    with pytest.raises(LabelloopError, match="revoked"):
        store.rotate(key.id, keep_hours=1)
    assert store.get(key.id).revoked

    def always(*_: object, **__: object) -> None:
        raise AlreadyExistsError("changed")

    monkeypatch.setattr(bucket, "swap", always)
    with pytest.raises(LabelloopError, match="try again"):
        store.rotate(store.add("b", [Scope.READ], by="a").record.id, keep_hours=1)


def test_only_what_has_changed_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = MemoryStore()
    store = ApiKeyStore(bucket)
    keys = [store.add(str(n), [Scope.READ], by="anna").record for n in range(3)]
    store.all()
    get, read = bucket.get, []
    monkeypatch.setattr(bucket, "get", lambda name: read.append(name) or get(name))  # type: ignore[func-returns-value]
    ApiKeyStore(bucket).revoke(keys[1].id)
    read.clear()
    assert [bool(key.revoked) for key in sorted(store.all(), key=lambda k: k.name)] == [False, True, False]
    assert read == [f"keys/{keys[1].id}.json"]


@pytest.mark.parametrize("change", [
    {"sha256": ""}, {"sha256": "A" * 64}, {"id": "000000000000"}, {"scopes": ["root"]}, {"per_minute": 0},
    {"expires": "never"}, {"revoked": "2026-01-01T00:00:00"}, {"name": None},
])  # fmt: skip
def test_a_damaged_key_lets_nobody_in_and_the_others_count(change: dict[str, object]) -> None:
    bucket = MemoryStore()
    store = ApiKeyStore(bucket)
    bad, good = (store.add(name, [Scope.READ], by="anna").record for name in ("bad", "good"))
    name = f"keys/{bad.id}.json"
    bucket.put(name, json.dumps({**json.loads(bucket.get(name)), **change}).encode())
    assert [key.id for key in ApiKeyStore(bucket).all()] == [good.id]
    assert [key.id for key in store.all()] == [good.id]
    (damaged,) = store.damage.all()
    assert damaged.key == name
    assert "labelloop keys remove" in damaged.remedy
    store.remove(bad.id)
    assert [key.id for key in store.all()] == [good.id]


def test_there_are_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "MOST", 2)
    bucket = MemoryStore()
    store = ApiKeyStore(bucket)
    for _ in range(2):
        store.add("a", [Scope.READ], by="anna")
    with pytest.raises(LabelloopError, match="keys remove"):
        store.add("a", [Scope.READ], by="anna")
    bucket.put("keys/ffffffffffff.json", b"{}")
    assert len(store.all()) == 2


@pytest.mark.parametrize(
    ("name", "scopes"), [("", [Scope.READ]), ("a\nb", [Scope.READ]), ("x" * 81, [Scope.READ]), ("a", [])]
)
def test_what_is_no_key_is_not_made(name: str, scopes: list[Scope]) -> None:
    store = ApiKeyStore(MemoryStore())
    with pytest.raises(LabelloopError):
        store.add(name, scopes, by="anna")
    assert store.all() == []
