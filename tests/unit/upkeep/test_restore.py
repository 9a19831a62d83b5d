"""What becomes of each object of a backup, by what is there now; and what is damaged in the first place."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime

import pytest

from labelloop.errors import FormatError
from labelloop.objects.storage import ObjectInfo
from labelloop.records.json import canonical, digest
from labelloop.upkeep.object_kinds import ObjectKind, StoredObject, classify
from labelloop.upkeep.retention import Item
from operations.upkeep.gc import heaps, size_text
from operations.upkeep.restore_back import Fate, fate
from operations.upkeep.restored import ORDER
from operations.upkeep.soundness import Inspector

VERSION, LOG, LATEST = "models/versions/00000001.json", "deployments/00000001.json", "snapshots/latest.json"
HEAD = "models/heads/abc.safetensors"


def held(key: str) -> StoredObject:
    (stored,) = classify([ObjectInfo(key, 1, "", datetime.now(UTC))])
    return stored


def latest(sequence: int) -> bytes:
    return canonical({"snapshot": "s", "sequence": sequence})


def test_every_kind_of_object_has_its_turn() -> None:
    assert sorted(ORDER) == sorted(ObjectKind)


@pytest.mark.parametrize(
    ("key", "ours", "kept", "expected"),
    [
        (HEAD, None, b"1", Fate.PUT),
        (HEAD, b"1", b"1", Fate.INTACT),
        (HEAD, b"2", b"1", Fate.PUT),
        ("features/b/rows/1.safetensors", b"2", b"1", Fate.PUT),
        ("catalogue/1.jsonl", b"{}", b'{"uri":""}', Fate.PUT),
        (VERSION, b'{"number":1}', b"{}", Fate.CONFLICT),
        (VERSION, b"half of a re", b"{}", Fate.PUT),
        (LOG, b'{"version":"v2"}', b'{"version":"v1"}', Fate.CONFLICT),
        (LOG, b"", b'{"version":"v1"}', Fate.PUT),
        (LATEST, latest(9), latest(3), Fate.NEWER),
        (LATEST, latest(2), latest(3), Fate.PUT),
        (LATEST, b"{}", latest(3), Fate.PUT),
        (LATEST, b"\xff", latest(3), Fate.PUT),
        ("runs/1-refresh.json", b'{"outcome":"hold"}', b'{"outcome":"running"}', Fate.NEWER),
        ("backbones/b/backbone.json", b'{"created_at":"2"}', b'{"created_at":"1"}', Fate.NEWER),
        ("deleted.json", b"[]", b'["a"]', Fate.NEWER),
        ("what/ever.bin", b"\xfe", b"\xff", Fate.PUT),
        ("requests/1.json", None, b"{}", Fate.OMIT),
        ("paused.json", None, b"{}", Fate.OMIT),
        ("gc.json", None, b"{}", Fate.OMIT),
    ],
)
def test_fate(key: str, ours: bytes | None, kept: bytes, expected: Fate) -> None:
    assert fate(held(key), ours, kept) is expected


def test_what_names_its_own_hash_is_judged_by_it() -> None:
    inspector, text = Inspector(), b'{"id":1}'
    shard = held(f"snapshots/shards/{digest(text)[:32]}.jsonl.gz")
    assert inspector.fault(shard, gzip.compress(text)) is None
    assert inspector.fault(shard, gzip.compress(b"{}")) is not None
    assert inspector.fault(shard, text) is not None
    assert inspector.fault(shard, gzip.compress(text)[:-5]) is not None
    manifest = canonical({"format": 1, "shards": {}})
    assert inspector.fault(held(f"snapshots/manifests/{digest(manifest)[:32]}.json"), manifest) is None
    assert inspector.fault(held("snapshots/manifests/other.json"), manifest) is not None
    assert inspector.fault(held(f"models/heads/{digest(b'h')[:32]}.safetensors"), b"h") is None
    assert inspector.fault(held(HEAD), b"h") is not None


def test_weights_and_rows_are_judged_by_their_records() -> None:
    inspector = Inspector()
    assert inspector.fault(held("backbones/b/backbone.json"), canonical({"weights_sha256": digest(b"w")})) is None
    assert inspector.fault(held("features/b/index/1.json"), canonical({"sha256": digest(b"r")})) is None
    assert inspector.fault(held("backbones/b/weights.safetensors"), b"w") is None
    assert inspector.fault(held("backbones/b/weights.safetensors"), b"x") is not None
    assert inspector.fault(held("features/b/rows/1.safetensors"), b"r") is None
    assert inspector.fault(held("features/b/rows/1.safetensors"), b"x") is not None
    assert inspector.fault(held("features/other/rows/1.safetensors"), b"x") is None  # nothing is known of it


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"{}"])
def test_a_record_that_cannot_be_read_is_damaged(data: bytes) -> None:
    assert Inspector().fault(held("features/b/index/1.json"), data) is not None


def test_a_record_of_a_newer_release_stops_the_backup() -> None:
    with pytest.raises(FormatError):
        Inspector().fault(held(VERSION), json.dumps({"format": 9}).encode())


def test_heaps_are_counted_by_kind_and_reason() -> None:
    items = [Item("a", 5, ObjectKind.HEAD, "x"), Item("b", 6, ObjectKind.HEAD, "x"),
             Item("c", 99, ObjectKind.HEAD, "y"), Item("d", 1, ObjectKind.VERSION, "x")]  # fmt: skip
    assert [(h.what, h.count, h.bytes, h.why) for h in heaps(items)] == [
        ("model version", 1, 1, "x"), ("head", 1, 99, "y"), ("head", 2, 11, "x"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (123_456, "123 kB"), (5.2e9, "5.2 GB"), (2e12, "2.0 TB")],
)  # fmt: skip
def test_sizes_for_people(size: float, text: str) -> None:
    assert size_text(size) == text
