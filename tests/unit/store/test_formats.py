"""What was kept once stays readable for ever, and what a newer release has kept is refused in words.

`formats/*.json` were written by releases of the past: never change one. A new format gets files of its own beside them.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import Any

import pytest

import labelloop.records.tasks
from labelloop.config.key_groups import name_of
from labelloop.config.task_fields import named_fields
from labelloop.errors import FormatError
from labelloop.images.mirror import Mirror
from labelloop.objects import formats
from labelloop.objects.formats import CURRENT, FIELD, MIGRATIONS, Kind, load, read, write
from labelloop.objects.storage import MemoryStore
from labelloop.records.api_keys import Scope
from labelloop.records.given import NOTHING_SAID, Said
from labelloop.records.images import Split
from labelloop.records.json import canonical, digest, fields_of
from labelloop.records.tasks import Annotation, Seen, Task, task_from, task_line
from labelloop.store.api_keys import ApiKeyStore
from labelloop.store.auto_labels import AutoLabelStore
from labelloop.store.batches import BatchStore
from labelloop.store.catalogue import Catalogue
from labelloop.store.curve import kept_curve
from labelloop.store.features import FeatureIndex
from labelloop.store.lr_curves import kept
from labelloop.store.pauses import PauseStore
from labelloop.store.projects import INDEX, ProjectStore
from labelloop.store.registry import Registry
from labelloop.store.requests import RequestStore
from labelloop.store.runs import RunStore
from labelloop.store.scores import ScoreStore
from labelloop.store.snapshots import SnapshotStore
from labelloop.store.studies import StudyStore
from labelloop.store.task_groups import TaskGroups
from labelloop.studio.archive import task_of
from labelloop.upkeep.tidying import last_tidied
from operations.upkeep.archive import ArchiveReader, ArchiveWriter

HERE = Path(__file__).parents[1] / "formats"
FILES = {path.stem: json.loads(path.read_text()) for path in sorted(HERE.glob("*.json"))}
SHARD = "snapshot-shard"
AUTO_LABELS = (  # what stands beside auto_labels.json
    b'{"bucket":"train","group":"%s","label":"cat","probability":0.875,"source":"auto-v17","uri":"s3://images/p/1.png"}\n'
    b'{"bucket":"test","group":"%s","label":"cat","probability":0.75,"source":"auto-v17","uri":"s3://images/p/2.png"}\n'
) % (b"1" * 64, b"2" * 64)


@contextmanager
def lease(_name: str) -> Iterator[int]:
    yield 1


def store_of(change: Callable[[dict[str, Any]], dict[str, Any]] = lambda data: data, only: str = "") -> MemoryStore:
    """All frozen files as one project, each object (``only``: of one kind) changed."""
    store = MemoryStore()
    for kind, file in FILES.items():
        touch = change if only in {"", kind} else lambda data: data
        if "data" in file:
            store.put(file["key"], canonical(touch(file["data"])))
        else:
            lines = b"\n".join(canonical(touch(line)) for line in file["lines"])
            store.put(file["key"], gzip.compress(lines, mtime=0) if kind == SHARD else lines)
    return store


# --- one reader per kind, as the services do it


def version(store: MemoryStore) -> None:
    record = Registry(store, lease).version("v1")
    assert (record.name, record.labels, record.reference) == ("v1", ("cat", "dog"), "v0")
    assert record.verdict.outcome == "promote"
    assert record.evaluation.waiting == {"ox": 2}
    assert record.evaluation.comparison
    assert record.evaluation.comparison.high == 0.11
    assert record.check_features[1] == (0.0, 1.0, 0.0, 0.0)


def deployment(store: MemoryStore) -> None:
    entry = Registry(store, lease).live()
    assert entry
    assert (entry.number, entry.version, entry.previous, entry.by, entry.fencing) == (1, "v1", None, "anna", 3)


def backbone(store: MemoryStore) -> None:
    record = Registry(store, lease).backbone("resnet18-0123456789")
    assert (record.name, record.dimension, record.snapshot) == ("resnet18", 4, "a" * 32)
    assert record.preprocessing["size"] == 224


def run(store: MemoryStore) -> None:
    (record,) = RunStore(store).all()
    assert (record.kind, record.attempt, record.outcome, record.version) == ("refresh", 2, "promote", "v1")
    assert record.reasons == ("good",)


def snapshot(store: MemoryStore) -> None:
    name = str(FILES["latest"]["data"]["snapshot"])
    task = SnapshotStore(store).load(name).tasks[5]
    assert (task.label, task.uri) == ("cat", "s3://images/p/1.png")
    assert task.annotations[0].seen
    assert task.annotations[0].seen.version == "v1"
    assert task.annotations[1].problem == "2 classes chosen, one is expected"


def latest(store: MemoryStore) -> None:
    ref = SnapshotStore(store).latest()
    assert ref
    assert (ref.sequence, ref.annotations) == (4, 2)


def catalogue(store: MemoryStore) -> None:
    images = Catalogue(store)
    images.update()
    assert images.images["s3://images/p/1.png"].bucket is Split.TEST
    assert images.images["s3://images/p/2.png"].problem == "it cannot be decoded"


def features(store: MemoryStore) -> None:
    index = FeatureIndex(store, "resnet18-0123456789")
    index.update()
    assert index.places["s3://images/p/1.png"].etag == "e1"


def scores(store: MemoryStore) -> None:
    order = ScoreStore(store).newest("v1")
    assert order
    assert [(p.label, p.blind) for p in order.places] == [("cat", False), (None, True)]


def request(store: MemoryStore) -> None:
    (record,) = RequestStore(store).open()
    assert (record.what, record.about, record.by) == ("retry", "refresh", "anna")


def pause(store: MemoryStore) -> None:
    record = PauseStore(store).current()
    assert record
    assert (record.by, record.why) == ("anna", "review")


def project(store: MemoryStore) -> None:
    key = FILES["project"]["key"].removeprefix(INDEX).removesuffix(".json")
    record = ProjectStore(store, "main").get(key)
    assert (record.id, record.title, record.backend_id, record.storage_id) == (4, "pets", 11, 12)
    assert record.config.label_map == {"ox": "dog"}
    assert record.schema.classes == ("cat", "dog")


def tidy(store: MemoryStore) -> None:
    record = last_tidied(store)
    assert record
    assert record.removed == {"head": [2, 4096]}


def mirror(store: MemoryStore) -> None:
    copies = Mirror(store)
    copies._update()
    assert copies.copies["https://example.com/1.png"].size == 10
    assert copies.copies["https://example.com/2.png"].problem == "it does not exist"


def backup(store: MemoryStore) -> None:
    manifest = read(Kind.BACKUP, store.get("manifest.json"))
    assert manifest["objects"][0][0] == "project.json"
    task = task_of(FILES["backup"]["task"])
    assert (task.annotations[0].by, task.annotations[0].lead_time) == ("anna@example.com", 2.5)


def study(store: MemoryStore) -> None:
    (record,) = StudyStore(store).all()
    assert (record.by, record.snapshot, record.rules.count) == ("anna", "5f2a", 3)
    assert record.config_with({"retrain.learning_rate": 0.002}).retrain.learning_rate == 0.002


def trial(store: MemoryStore) -> None:
    (name,) = StudyStore(store).names()
    (record,) = StudyStore(store).trials(name)
    assert (record.number, record.state, record.accuracy, record.curve[1]) == (2, "complete", 0.75, (0.75, 0.5))


def lr_curve(store: MemoryStore) -> None:
    record = kept(store, "20261121T055556411574-54908e")
    assert (record.rates[1], record.suggestion, record.diverged_at) == (0.001, 0.001, 1.0)


def curve(store: MemoryStore) -> None:
    record = kept_curve(store)
    assert (record.live, record.test, record.audit, record.left, record.waiting) == ("v2", 2, 1, 40, {"ox": 2})
    assert [(p.version, p.labels, p.judged, p.accuracy) for p in record.points] == [
        ("v1", 20, 2, 0.5),
        ("v2", 30, 3, 1.0),
    ]


def auto_labels(store: MemoryStore) -> None:
    (manifest,) = AutoLabelStore(store).all()
    assert (manifest.version, manifest.source, manifest.look, manifest.classes) == ("v17", "auto-v17", 2, {"cat": 2})
    assert [(p.classes, p.threshold, p.further) for p in manifest.parts] == [
        (("cat",), 0.75, None),
        (("dog",), None, 120),
    ]
    store.put(f"auto-labels/v17/{manifest.id}.jsonl", AUTO_LABELS)
    assert [one.uri for one in AutoLabelStore(store).labels(manifest)] == ["s3://images/p/1.png", "s3://images/p/2.png"]


def task_groups(store: MemoryStore) -> None:
    found = TaskGroups(store)
    found.update()
    fields = named_fields("field:patient", "field:split=test")
    assert found.of("s3://images/p/1.png", fields) == Said(name_of("07"), test=True)
    assert found.of("s3://images/p/2.png", fields) == NOTHING_SAID
    assert found.of("s3://images/p/3.png", fields) is None


def batch(store: MemoryStore) -> None:
    found = BatchStore(store).get("0123456789abcdef")
    assert (found.version, found.count, found.shards, found.top) == ("v7", 201, 2, 3)


def api_key(store: MemoryStore) -> None:
    record = ApiKeyStore(store).get("0123456789ab")
    assert (record.name, record.scopes, record.project) == ("camera 7", (Scope.READ, Scope.PREDICT), "main-1-0")
    assert (record.per_minute, record.expires[:4], record.revoked) == (60, "2027", "")


READERS: dict[str, Callable[[MemoryStore], None]] = {
    f.__name__: f
    for f in (version, deployment, backbone, run, snapshot, latest, catalogue, features, scores, request, pause,
              project, tidy, mirror, backup, study, trial, lr_curve, curve, auto_labels, task_groups, api_key, batch)
}  # fmt: skip
HASHED = {"snapshot"}  # named by its bytes: nobody adds to one


def test_every_kind_is_frozen_and_read() -> None:
    assert set(READERS) == {kind.value for kind in Kind} == set(FILES) - {SHARD}


@pytest.mark.parametrize("kind", READERS)
def test_what_is_frozen_can_be_read(kind: str) -> None:
    READERS[kind](store_of())


@pytest.mark.parametrize("kind", sorted(set(READERS) - HASHED))
def test_data_without_a_format_is_of_the_first(kind: str) -> None:
    """As 0.1.0 wrote it."""
    READERS[kind](store_of(lambda data: {k: v for k, v in data.items() if k != FIELD}))


@pytest.mark.parametrize("kind", sorted(set(READERS) - HASHED - {"backup"}))
def test_fields_of_a_newer_release_are_ignored(kind: str) -> None:
    READERS[kind](store_of(lambda data: {**data, "mood": "sunny"}, only=kind))


def test_fields_within_an_evaluation_are_ignored_too() -> None:
    def add(data: dict[str, Any]) -> dict[str, Any]:
        evaluation = data["evaluation"]
        more = {**evaluation, "mood": 1, "comparison": {**evaluation["comparison"], "mood": 1}}
        return {**data, "evaluation": more, "verdict": {**data["verdict"], "mood": 1}}

    version(store_of(add, only="version"))


@pytest.mark.parametrize("kind", sorted(set(READERS) - HASHED))
def test_a_newer_format_is_refused(kind: str) -> None:
    store = store_of(lambda data: {**data, FIELD: 99}, only=kind)
    with pytest.raises(
        FormatError, match=rf"this {kind} was written by a newer labelloop \(format 99, .* upgrade this"
    ):
        READERS[kind](store)


def test_a_snapshot_of_a_newer_format_is_refused() -> None:
    store, manifest = MemoryStore(), canonical({FIELD: 2, "shards": {}})
    name = digest(manifest)[:32]
    store.put(f"snapshots/manifests/{name}.json", manifest)
    with pytest.raises(FormatError, match="snapshot"):
        SnapshotStore(store).load(name)


def test_a_project_of_a_newer_format_is_left_out_and_the_others_go_on() -> None:
    store = store_of()
    newer = {**FILES["project"]["data"], FIELD: 2, "id": 5}
    store.put(f"{INDEX}main-5-1767225600.json", canonical(newer))
    assert [p.id for p in ProjectStore(store, "main").all()] == [4]


# --- ids of snapshots


def test_a_snapshot_that_is_read_and_frozen_again_keeps_its_id() -> None:
    store = store_of()
    name = str(FILES["latest"]["data"]["snapshot"])
    tasks = SnapshotStore(store).load(name).tasks.values()
    assert SnapshotStore(MemoryStore()).freeze(tasks).id == name


def test_a_new_field_of_annotations_changes_no_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = make_dataclass(
        "Annotation", [("mood", str | None, None), ("votes", int, 0)], bases=(Annotation,), frozen=True, slots=True
    )
    plain = Annotation(1, "a", "b", "cat")
    before = canonical(task_line(Task(1, "u", "b", (plain,))))
    monkeypatch.setattr(labelloop.records.tasks, "Annotation", newer)
    values = {f.name: getattr(plain, f.name) for f in fields(Annotation)}
    assert canonical(task_line(Task(1, "u", "b", (newer(**values),)))) == before
    row = task_line(Task(1, "u", "b", (newer(**values, mood="sunny"),)))
    assert row["annotations"][0]["mood"] == "sunny"
    assert "votes" not in row["annotations"][0]


def test_what_is_known_of_a_pre_label_stands_in_a_snapshot_only_where_it_is_known() -> None:
    def line(**more: Any) -> dict[str, Any]:
        (row,) = task_line(Task(1, "u", "b", (Annotation(1, "a", "b", "cat", **more),)))["annotations"]
        assert task_from({"id": 1, "uri": "u", "updated_at": "b", "annotations": [row]}).annotations == (
            Annotation(1, "a", "b", "cat", **more),
        )
        return dict(row)

    assert line(seen=Seen("v1", None, blind=True))["seen"] == {"version": "v1", "label": None, "blind": True}
    prediction = line(seen=Seen("v1", "cat", blind=True, probability=0.5, chosen=True))["seen"]
    assert (prediction["probability"], prediction["chosen"]) == (0.5, True)
    assert not {"given", "changed_by"} & line().keys()
    assert line(given="dog", changed_by=3)["given"] == "dog"


# --- migrations


@dataclass(frozen=True)
class Small:
    name: str
    size: int = 0


def test_old_data_is_upgraded_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CURRENT, Kind.REQUEST, 3)
    monkeypatch.setitem(MIGRATIONS, (Kind.REQUEST, 1), lambda data: {**data, "name": data["title"]})
    monkeypatch.setitem(MIGRATIONS, (Kind.REQUEST, 2), lambda data: {**data, "size": len(data["name"])})
    assert load(Kind.REQUEST, b'{"title":"abc"}', Small) == Small("abc", 3)
    assert load(Kind.REQUEST, b'{"format":2,"name":"ab"}', Small) == Small("ab", 2)
    assert load(Kind.REQUEST, b'{"format":3,"name":"a","size":9}', Small) == Small("a", 9)
    assert json.loads(write(Kind.REQUEST, {"name": "a"})) == {"format": 3, "name": "a"}
    with pytest.raises(FormatError, match="format 4"):
        load(Kind.REQUEST, b'{"format":4,"name":"a"}', Small)


@pytest.mark.parametrize("kind", Kind)
def test_there_is_a_way_from_every_format_to_the_present_one(kind: Kind) -> None:
    assert {n for k, n in MIGRATIONS if k is kind} == set(range(1, CURRENT[kind]))


@pytest.mark.parametrize("raw", [b"[]", b'{"format":"1"}', b'{"format":0}', b"", b'{"format":null}'])
def test_what_is_no_record_is_no_record(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"must be|no format|Expecting"):
        read(Kind.RUN, raw)


def test_what_is_not_known_is_left_out() -> None:
    assert fields_of(Small, {"name": "a", "mood": 1}) == {"name": "a"}


def test_no_module_reads_kept_records_past_formats() -> None:
    """`Record(**json.loads(...))` breaks with the first field that a newer release adds."""
    root = Path(formats.__file__).parents[2]
    rooms = ("labelloop", "sync", "retrain_worker", "ml_backend", "cli")
    for path in [p for room in rooms for p in (root / room).rglob("*.py")]:
        assert not re.search(r"\w+\(\*\*json\.loads\(", path.read_text()), path


def test_a_backup_of_a_newer_release_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CURRENT, Kind.BACKUP, 2)
    with ArchiveWriter(tmp_path / "b.tar") as archive:
        archive.finish({})
    monkeypatch.setitem(CURRENT, Kind.BACKUP, 1)
    with pytest.raises(FormatError, match="backup"):
        ArchiveReader(tmp_path / "b.tar")
