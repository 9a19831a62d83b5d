"""Arbitrary JSON in any place of any kept object: readers raise the one error that names the key, and nothing else."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from labelloop.errors import CorruptArtefactError, FormatError, LabelloopError, NotFoundError, SettingsError
from labelloop.images.mirror import Mirror
from labelloop.objects.damage import Damage
from labelloop.objects.storage import MemoryStore, ObjectStore
from labelloop.store.auto_labels import AutoLabelStore
from labelloop.store.catalogue import Catalogue
from labelloop.store.configs import kept_config
from labelloop.store.curve import kept_curve
from labelloop.store.deleted import read_deleted
from labelloop.store.features import FeatureIndex
from labelloop.store.pauses import PauseStore
from labelloop.store.projects import ProjectStore
from labelloop.store.registry import Registry
from labelloop.store.requests import RequestStore
from labelloop.store.runs import RunStore
from labelloop.store.scores import ScoreStore
from labelloop.store.snapshots import SnapshotStore
from labelloop.store.studies import StudyStore
from labelloop.upkeep.inspection import fault_of, is_known
from labelloop.upkeep.tidying import last_tidied
from tests.unit.worlds.damage import VICTIM, Base, build, lease

SEED, TIMES = 20260101, 60
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 7, 2**70, -0.5, 1e308, float("inf"), float("nan"), "", "x", "v1", "v99999999999", "\x00",
    "../..", "2026-13-45T99:99:99Z", "é" * 300, [], [[]], [1], ["x"], [None], {}, {"": {}}, {"format": "x"}, {"id": []},
    [{"uri": 3}], {"a": [1, {"b": None}]},
)  # fmt: skip
ALLOWED = (CorruptArtefactError, FormatError, SettingsError, NotFoundError)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return build(tmp_path_factory.mktemp("base"))


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def changed(data: Any, path: tuple[Any, ...], value: Any, *, remove: bool) -> Any:
    if not path:
        return value
    copy = dict(data) if isinstance(data, dict) else list(data)
    if len(path) == 1 and remove:
        del copy[path[0]]
    else:
        copy[path[0]] = changed(data[path[0]], path[1:], value, remove=remove)
    return copy


def mutants(raw: bytes, dice: random.Random) -> Iterator[bytes]:
    """One place of one line changed, or taken away."""
    lines = [json.loads(line) for line in raw.splitlines() if line]
    for _ in range(TIMES):
        i = dice.randrange(len(lines))
        path = dice.choice(list(places(lines[i])))
        line = changed(lines[i], path, dice.choice(VALUES), remove=dice.random() < 0.2)
        yield b"\n".join(json.dumps(one).encode() for one in [*lines[:i], line, *lines[i + 1 :]])


def unpacked(key: str, raw: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    if key.endswith(".gz"):
        return gzip.decompress(raw), gzip.compress
    return raw, bytes


def kept(base: Base) -> Iterator[tuple[str, bytes]]:
    """One of each shape of key within the damaged project, and its record."""
    seen = set()
    for kind, key in base.kinds().items():
        inner = key.removeprefix(f"projects/{base.records[VICTIM].key}/")
        if key.endswith((".json", ".jsonl", ".gz")) and kind not in seen:
            seen.add(kind)
            yield inner, base.objects[key]


def read_all(store: ObjectStore, base: Base) -> Iterator[Callable[[], object]]:
    """What services and commands read, each by itself."""
    record = base.records[VICTIM]
    own_key = f"projects/{record.key}"
    from labelloop.objects.storage import Within

    own = Within(store, own_key)
    registry, runs, scores = Registry(own, lease), RunStore(own), ScoreStore(own)
    snapshots, studies, requests = SnapshotStore(own), StudyStore(own), RequestStore(own)
    projects = ProjectStore(store, "main")
    yield projects.all
    yield lambda: projects.get(record.key)
    yield lambda: projects.heal(record)
    yield registry.live
    yield registry.versions
    yield registry.decisions
    yield registry.rejected
    yield registry.rollback_target
    yield registry.current_backbone
    yield registry.initial_backbone
    yield lambda: [registry.head(v) for v in registry.versions()]
    yield runs.all
    yield requests.open
    yield PauseStore(own).current
    yield lambda: [scores.newest(v.name) for v in registry.versions()]
    yield snapshots.latest
    yield snapshots.newest
    yield lambda: [studies.trials(s.name) for s in studies.all()]
    yield Catalogue(own).update
    yield Mirror(own).update
    yield AutoLabelStore(own).all
    yield lambda: read_deleted(own, Damage())
    yield lambda: kept_curve(own)
    yield lambda: last_tidied(own)
    yield lambda: [kept_config(own, v.config) for v in registry.versions()]
    yield lambda: [FeatureIndex(own, v.backbone).update() for v in registry.versions()]


def test_any_value_in_any_place_of_any_object_is_one_error_or_none(base: Base) -> None:
    dice = random.Random(SEED)
    surprises: dict[str, str] = {}
    for key, raw in kept(base):
        text, pack = unpacked(key, raw)
        for mutant in mutants(text, dice) if is_known(key) else ():
            try:
                fault_of(key, pack(mutant))
            except LabelloopError as error:
                if not isinstance(error, ALLOWED):
                    surprises[f"{key} {type(error).__name__}"] = f"{error} {mutant[:300]!r}"
            except Exception as error:
                surprises[f"{key} {type(error).__name__}"] = f"{error} {mutant[:300]!r}"
    assert surprises == {}


def test_any_value_in_any_place_leaves_every_reader_with_one_error(base: Base) -> None:
    dice = random.Random(SEED + 1)
    surprises: dict[str, str] = {}
    for inner, raw in kept(base):
        key = inner if inner.startswith("index/") else f"projects/{base.records[VICTIM].key}/{inner}"
        text, pack = unpacked(key, raw)
        for mutant in list(mutants(text, dice))[:15]:
            store = MemoryStore()
            for name, data in base.objects.items():
                store.put(name, data)
            store.put(key, pack(mutant))
            for i, read in enumerate(read_all(store, base)):
                try:
                    read()
                except ALLOWED:
                    pass
                except Exception as error:
                    surprises[f"{inner} reader {i} {type(error).__name__}"] = f"{error} {mutant[:300]!r}"
    assert surprises == {}
