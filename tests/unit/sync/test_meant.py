"""Which answers count: what people meant, and nothing that nobody looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import sync.answers.empties
from bench.watcher import LABELLED, World
from labelloop.clock import LABEL_STUDIO_FORMAT, now, stamp
from labelloop.config.networks import NetworkChoice
from labelloop.config.project import ProjectConfig, parse_config
from labelloop.config.settings import load_settings
from labelloop.errors import StudioError
from labelloop.labels.instruction import ENTER, SUBMIT
from labelloop.labels.label_config import asks_for_a_class
from labelloop.labels.results import CONFIRMED_MARK, LabelSchema, make_label_config, parse_label_config
from labelloop.objects.storage import MemoryStore
from labelloop.records.images import MOST_EARLIER, Bytes, ImageFacts, Split
from labelloop.records.json import canonical, digest
from labelloop.records.snapshots import Snapshot
from labelloop.records.tasks import Annotation, Seen, Task, annotation_from, task_from, task_line
from labelloop.rules.outdated import outdated
from labelloop.rules.schema import BULK, OUTDATED, LabelRules
from labelloop.rules.uncounted import uncounted
from labelloop.store.catalogue import Catalogue
from labelloop.store.projects import ProjectRecord, ProjectStore, dump_record, load_record, project_store
from labelloop.studio.empties import is_recorded_empty
from labelloop.studio.rows import annotation_of
from operations.projects.wiring import Wish, wire
from retrain_worker.evidence.examples import examples_of
from retrain_worker.featurise import featurise
from sync.answers.empties import PREFIX, Empties, empty_of
from sync.answers.feed import Feed
from tests.fakes.studio import FakeStudio
from tests.fakes.studio_api import StudioApi, studio_of
from tests.unit.worlds.learning import LearningWorld

SCHEMA = LabelSchema("label", "image", "image", ("cat", "dog", "owl"))
URI = "s3://images/1.png"


def at(minute: float) -> str:
    return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)).strftime(LABEL_STUDIO_FORMAT)


def answer(label: str | None, minute: float = 0, **more: Any) -> Annotation:
    return Annotation(int(minute) + 1, at(minute), at(minute), label, **more)


def task(*answers: Annotation) -> Task:
    return Task(1, URI, at(0), answers)


# --- several answers to one task


VOTES = [answer("cat", 0, completed_by=1), answer("cat", 1, completed_by=2), answer("dog", 2, completed_by=3)]


@pytest.mark.parametrize(
    ("answers", "newest", "majority"),
    [
        (VOTES, "dog", "cat"),
        (VOTES[1:], "dog", "dog"),  # equally many: the newest
        ([*VOTES, answer("owl", 3, completed_by=1)], "owl", "owl"),  # one vote a person: their last word
        ([*VOTES, answer("dog", 3, completed_by=3)], "dog", "cat"),  # nobody votes twice
        ([*VOTES, answer(None, 3, cancelled=True), answer(None, 4)], "dog", "cat"),
        ([answer("owl", 0, ground_truth=True), *VOTES[1:]], "owl", "owl"),
        ([answer("owl", 0, ground_truth=True), answer("dog", 1, ground_truth=True), VOTES[2]], "dog", "dog"),
        ([], None, None),
    ],
)
def test_a_ground_truth_counts_then_the_rule_of_the_config(
    answers: list[Annotation], newest: str | None, majority: str | None
) -> None:
    assert LabelRules().task(task(*answers)).label == newest
    assert LabelRules(majority=True).task(task(*answers)).label == majority


def test_a_rule_that_is_not_the_default_makes_another_config_and_a_default_none() -> None:
    plain = ProjectConfig()
    parts = plain.model_dump(mode="json", exclude={"answers", "retention", "stop"})
    parts["buckets"] = {k: v for k, v in parts["buckets"].items() if k not in {"group_by", "test_set"}}
    assert plain.hash == digest(canonical(parts))[:12]  # as before there were rules: nothing refits
    parts = {"backbone": parts["backbone"], "retrain": plain.retrain.recipe, "seed": 0}
    assert plain.recipe == digest(canonical(parts))[:12]
    same = parse_config({"answers": {"resolve": "ground-truth-first", "reopen_empty": True}}, "t")
    assert (same.hash, same.recipe) == (plain.hash, plain.recipe)
    for answers in ({"resolve": "majority"}, {"from_predictions": True}):
        other = parse_config({"answers": answers}, "t")
        assert other.hash != plain.hash
        assert other.recipe != plain.recipe
        assert LabelRules.of(other) != LabelRules.of(plain)


def test_what_is_kept_of_a_task_is_what_it_was() -> None:
    """A snapshot's id is its bytes: no field that says nothing may stand there."""
    plain = task(answer("cat"))
    line = task_line(plain)
    assert not {"majority", "bulk", "of", "outdated"} & {*line, *line["annotations"][0]}
    marked = task(answer("cat", bulk=True, of="s3://images/0.png", outdated=at(5)))
    assert task_from(task_line(replace(marked, majority=True))) == marked
    assert annotation_from(line["annotations"][0]) == plain.annotations[0]


# --- answers that Label Studio made


def row(**more: Any) -> dict[str, Any]:
    made = {"id": 1, "created_at": at(0), "updated_at": at(0), "result": SCHEMA.result("cat"), "completed_by": 1,
            "parent_prediction": 7, "lead_time": None, "updated_by": None, "bulk_created": False}  # fmt: skip
    return made | more


MARKED = [{**SCHEMA.result("cat")[0], "meta": {"text": [CONFIRMED_MARK]}}]


@pytest.mark.parametrize(
    ("data", "bulk"),
    [
        (row(), True),
        (row(bulk_created=True, updated_by=1), True),
        (row(result=MARKED), False),
        (row(lead_time=2.5, updated_by=1), False),
        (row(updated_by=1), False),  # posted, or changed by a person
        (row(parent_prediction=None), False),  # imported
        (row(parent_prediction="x"), False),
    ],
)
def test_an_answer_that_is_a_copied_prediction_is_told_from_those_of_people(
    data: dict[str, Any], *, bulk: bool
) -> None:
    found = annotation_of(data, SCHEMA)
    assert (found.label, found.bulk) == ("cat", bulk)
    assert LabelRules().task(task(found)).label == (None if bulk else "cat")
    assert LabelRules(bulk=True).task(task(found)).label == "cat"


def test_a_copied_prediction_is_told_until_a_person_answers() -> None:
    copied = answer("cat", bulk=True)
    alone, looked = (LabelRules().task(task(copied, *more)) for more in ((), (answer("dog", 1),)))
    assert [(u.reason, u.tasks) for u in uncounted([alone], SCHEMA, str)] == [(BULK, (1,))]
    assert uncounted([looked], SCHEMA, str) == ()
    assert LabelRules().task(task(replace(copied, ground_truth=True))).label == "cat"


def test_a_copied_prediction_stays_one_when_its_prediction_is_deleted_and_ends_with_a_change() -> None:
    studio = FakeStudio(SCHEMA)
    number = studio.add_task(URI)
    studio._put(number, answer("cat", bulk=True))
    feed = Feed(studio, 1, SCHEMA, shown=lambda *_: Seen("v1", "cat"))
    feed.reconcile()
    assert feed.tasks[number].annotations[0].seen is None  # nobody had it before them: no figure of anybody's work
    studio._put(number, answer("cat"))  # `parent_prediction` is null now
    studio.annotate(number, None, skip=True)
    feed.poll()
    assert [a.bulk for a in feed.tasks[number].annotations] == [True, False]
    studio.change_annotation(number, 1, "dog")
    feed.poll()
    assert LabelRules().task(feed.tasks[number]).label == "dog"


# --- other bytes in the same file


def test_bytes_are_remembered_with_their_times_and_only_so_many() -> None:
    facts = ImageFacts(URI, "e", "a", "a", Split.TEST)
    second = facts.overwritten("b", at(10))
    assert (second.bucket, second.group, second.earlier) == (Split.TEST, "", (Bytes("a", at(10)),))
    assert [second.changed_after(at(m)) for m in (5, 10, 15)] == [at(10), None, None]
    back = second.overwritten("a", at(20))
    assert [back.changed_after(at(m)) for m in (5, 15, 25)] == [None, at(20), None]
    for n in range(30, 60):
        back = back.overwritten(str(n), at(n))
    assert len(back.earlier) == MOST_EARLIER
    assert back.changed_after(at(5)) is not None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (answer("cat", 5), at(10)),
        (answer("cat", 12), None),
        (answer("cat", 12, lead_time_s=300.0), at(10)),  # the page was open since minute 7
        (replace(answer("cat", 5), updated_at=at(12)), None),  # submitted again
        (replace(answer("cat", 5, lead_time_s=9000.0), updated_at=at(12)), None),
        (answer(None, 5, cancelled=True), None),
    ],
)
def test_an_answer_belongs_to_the_bytes_that_its_author_saw(given: Annotation, expected: str | None) -> None:
    images = {URI: ImageFacts(URI, "e", "b", "b", earlier=(Bytes("a", at(10)),))}
    assert outdated(images, URI, given) == expected
    assert outdated({}, URI, given) is None


def test_an_answer_to_an_image_that_its_task_no_longer_shows_is_set_aside() -> None:
    images = {uri: ImageFacts(uri, "e", sha) for uri, sha in ((URI, "a"), ("moved", "a"), ("other", "b"))}
    studio = FakeStudio(SCHEMA)
    number = studio.add_task(URI)
    studio.annotate(number, "cat")
    feed = Feed(studio, 1, SCHEMA, shown=lambda _, a: a.seen, outdated=lambda u, a: outdated(images, u, a))
    labels = []
    for uri in (URI, "moved", "other", "new", URI):
        studio._keep(replace(studio._tasks[number], uri=uri, updated_at=studio._now()))
        feed.poll()
        labels.append(LabelRules().task(feed.tasks[number]).label)
    assert labels == ["cat", "cat", None, "cat", "cat"]  # of `new` nothing is known yet, so nothing is learned of it


def test_a_label_is_set_aside_while_other_bytes_stand_in_its_file_until_somebody_looks() -> None:
    aside = LabelRules().task(task(answer("cat", outdated=at(10))))
    assert aside.label is None
    assert [(u.reason, u.tasks) for u in uncounted([aside], SCHEMA, str)] == [(OUTDATED, (1,))]
    for later in (answer("dog", 11), answer(None, 11, cancelled=True)):
        looked = LabelRules().task(task(answer("cat", outdated=at(10)), later))
        assert looked.label == later.label
        assert uncounted([looked], SCHEMA, str) == ()


def overwrite(world: World, uri: str, sha: str) -> None:
    catalogue = Catalogue(project_store(world.memory, world.record.key))
    catalogue.update()
    catalogue.add([replace(catalogue.images[uri].overwritten(sha, now()), group=sha)], stamp())


def test_the_watcher_sets_a_label_aside_and_takes_it_back_also_after_a_restart() -> None:
    world = World(LABELLED + 60)
    world.watch.turn(nudged=True)
    number, uri = world.ids[3], world.uris[3]
    before = world.watch.snapshot
    overwrite(world, uri, "other")
    world.watch.pool._read_at = float("-inf")
    world.watch.turn(nudged=True)
    assert world.watch.snapshot is not None
    assert world.watch.snapshot != before
    assert LabelRules().task(world.watch.snapshot.tasks[number]).label is None
    assert sum(LabelRules().task(t).label is None for t in world.watch.snapshot.tasks.values()) == 1
    world.restart()
    world.watch.turn(nudged=True)
    assert LabelRules().task(world.watch.snapshot.tasks[number]).label is None
    overwrite(world, uri, uri)  # the bytes that were labelled
    world.restart()  # nobody watched
    world.watch.turn(nudged=True)
    assert world.watch.snapshot == before


def test_an_overwritten_image_keeps_its_bucket_and_tells_what_stood_there(tmp_path: Path) -> None:
    world = LearningWorld(tmp_path, images=60)
    images = world.project.catalogue.images
    spare = world._take(2)
    for bucket, new in zip((Split.TEST, Split.TRAIN), spare, strict=True):
        uri = world.uris(bucket)[0]
        before = images[uri]
        world.images.kept[uri] = world.images.kept.pop(new)
        snapshot = world.project.snapshots.load(world.label([uri]))
        assert [e.uri for e in examples_of(snapshot, world.project.catalogue, [uri]) if e.uri == uri] == [uri]
        featurise(world.context, world.project, [uri])
        world.project.catalogue.update()
        after = images[uri]
        assert uri not in {e.uri for e in examples_of(snapshot, world.project.catalogue, [uri])}  # nobody marked it yet
        assert (after.bucket, after.sha256 != before.sha256, after.group) == (bucket, True, after.sha256)
        assert [b.sha256 for b in after.earlier] == [before.sha256]
        featurise(world.context, world.project, [uri])  # nothing new
        world.project.catalogue.update()
        assert images[uri] == after


def test_an_image_overwritten_with_one_of_another_bucket_stands_in_none(tmp_path: Path) -> None:
    world = LearningWorld(tmp_path, images=60)
    images = world.project.catalogue.images
    (train, same), test = world.uris(Split.TRAIN)[:2], world.uris(Split.TEST)[0]
    world.images.kept[train] = world.images.kept[test]
    world.images.kept[same] = world.images.kept[world.uris(Split.TRAIN)[2]]
    featurise(world.context, world.project, [train, same])
    world.project.catalogue.update()
    assert (images[train].bucket, images[test].bucket, images[same].bucket) == (
        Split.QUARANTINE, Split.TEST, Split.TRAIN,
    )  # fmt: skip


# --- empty answers


def recorded(**more: Any) -> Annotation:
    return Annotation(5, at(0), at(1), None, **more)


FRESH = {"id": 5, "task": 9, "created_at": at(0), "updated_at": at(1), "result": [], "was_cancelled": False,
         "ground_truth": False}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "drafts", "deleted"),
    [
        ({}, [], True),
        ({}, [{"id": 1, "annotation": None}], True),  # of somebody who begins an answer of their own
        ({}, [{"id": 1, "annotation": 5}], False),
        ({}, [{"id": 1}], False),
        ({}, {"results": []}, False),
        ({"result": SCHEMA.result("cat")}, [], False),
        ({"result": [{"from_name": "note", "value": {"text": ["x"]}}]}, [], False),
        ({"result": [{"from_name": "label", "value": {"choices": []}}]}, [], False),
        ({"result": None}, [], False),
        ({"result": "[]"}, [], False),
        ({"was_cancelled": True}, [], False),
        ({"was_cancelled": None}, [], False),
        ({"ground_truth": True}, [], False),
        ({"updated_at": at(2)}, [], False),
        ({"created_at": at(2)}, [], False),  # another one under the same number
        ({"id": 6}, [], False),
        ({"task": 10}, [], False),
        ({"task": None}, [], False),
    ],
)
def test_nothing_is_deleted_but_an_empty_answer_as_it_was_recorded(
    change: dict[str, Any], drafts: Any, *, deleted: bool
) -> None:
    assert is_recorded_empty(FRESH | change, drafts, 9, recorded()) is deleted
    assert not is_recorded_empty([], drafts, 9, recorded())


@pytest.mark.parametrize(
    "other",
    [answer("cat"), answer(None, cancelled=True), answer(None, ground_truth=True), answer(None, problem="unreadable"),
     answer(None, seed=True)],
)  # fmt: skip
def test_only_answers_in_which_nothing_is_chosen_are_looked_at(other: Annotation) -> None:
    empty = answer(None, 1)
    assert list(empty_of({1: task(other, empty)})) == [(task(other, empty), empty)]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(sync.answers.empties, "AT_ONCE", 3)
    world = World(LABELLED + 60)
    yield world


def watched(world: World, **record: Any) -> Empties:
    watch = world.watch
    watch.turn(nudged=True)
    return Empties(replace(world.record, **record), watch._store, world.studio)  # type: ignore[arg-type]


def left(world: World) -> int:
    tasks = world.studio.tasks(1, world.record.schema, world.ids)
    return sum(len(t.annotations) for t in tasks)


def asked(**answers: Any) -> ProjectConfig:
    return parse_config({"answers": answers}, "t")


def test_empty_answers_of_a_project_that_we_made_are_recorded_then_deleted_a_few_at_a_time(world: World) -> None:
    tasks = world.ids[-5:]
    given = [world.studio.annotate(t, None) for t in tasks]
    world.studio.annotate(world.ids[-6], None, skip=True)
    others = left(world) - len(given)
    empties = watched(world, made=True)
    assert world.watch.snapshot is not None
    for expected in (3, 5, 5):
        empties.turn(world.watch.snapshot)
        assert empties.deleted == expected
    assert left(world) == others
    names = sorted(info.key for info in world.watch._store.list(PREFIX))
    assert sorted(int(name.rpartition("-")[2].removesuffix(".json")) for name in names) == sorted(given)
    world.watch.turn(nudged=True)
    assert all(world.uris[world.ids.index(t)] in world.watch.feed.task_index.open for t in tasks)


@pytest.mark.parametrize(
    ("record", "deletes"),
    [
        ({}, False),
        ({"config": asked(reopen_empty=True)}, True),
        ({"made": True, "config": asked(reopen_empty=False)}, False),
    ],
)
def test_an_adopted_project_is_left_alone_unless_its_config_says_otherwise(
    world: World, record: dict[str, Any], *, deletes: bool
) -> None:
    world.studio.annotate(world.ids[-1], None)
    before = left(world)
    empties = watched(world, **record)
    assert world.watch.snapshot is not None
    empties.turn(world.watch.snapshot)
    assert before - left(world) == deletes == empties.deleted


def test_an_answer_that_was_filled_since_the_snapshot_is_kept(world: World) -> None:
    number = world.ids[-1]
    given = world.studio.annotate(number, None)
    empties = watched(world, made=True)
    world.studio.change_annotation(number, given, world.record.schema.classes[0])
    assert world.watch.snapshot is not None
    empties.turn(world.watch.snapshot)
    assert empties.deleted == 0
    assert world.studio.tasks(1, world.record.schema, [number])[0].label == world.record.schema.classes[0]


def test_an_answer_of_this_moment_is_left_to_its_author(world: World) -> None:
    fresh = Task(world.ids[-1], URI, now(), (Annotation(1, now(), now(), None),))
    empties = watched(world, made=True)
    empties.turn(Snapshot("s", {fresh.id: fresh}))
    assert empties.facts()["waiting"] == 1
    assert list(world.watch._store.list(PREFIX)) == []


def test_a_watcher_that_dies_between_record_and_delete_is_followed_by_one_that_deletes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.studio.annotate(world.ids[-1], None)
    before = left(world)
    empties = watched(world, made=True)

    def refused(*_: Any) -> bool:
        raise StudioError("Label Studio answered 403", status=403)

    snapshot = world.watch.snapshot
    assert snapshot is not None
    with monkeypatch.context() as patched:
        patched.setattr(world.studio, "delete_empty", refused)
        empties.turn(snapshot)
    assert left(world) == before
    assert "403" in str(empties.facts()["problem"])
    empties.turn(snapshot)  # it rests
    assert left(world) == before
    watched(world, made=True).turn(snapshot)
    assert left(world) == before - 1
    assert len(list(world.watch._store.list(PREFIX))) == 1


def test_a_new_snapshot_without_them_is_that_of_before_they_were_given(world: World) -> None:
    world.watch.turn(nudged=True)
    before = world.watch.snapshot
    world.studio.annotate(world.ids[-1], None)
    empties = watched(world, made=True)
    assert world.watch.snapshot is not None
    assert world.watch.snapshot != before
    empties.turn(world.watch.snapshot)
    world.watch.turn(nudged=True)
    assert world.watch.snapshot == before


def test_the_default_config_asks_for_a_class_and_its_schema_is_read_as_before() -> None:
    made = make_label_config(["cat", "dog"])
    assert asks_for_a_class(made)
    assert not asks_for_a_class(made.replace('required="true"', 'required="false"'))
    assert not asks_for_a_class(made.replace('required="true" ', ""))
    assert parse_label_config(made) == LabelSchema("label", "image", "image", ("cat", "dog"))


def test_a_project_that_we_make_says_how_to_label_and_is_known_as_ours_afterwards_an_adopted_one_is_not() -> None:
    api = StudioApi()
    store = ProjectStore(MemoryStore(), "main")
    settings = load_settings({"LABELLOOP_IMAGE_BUCKETS": "images", "LABELLOOP_STUDIO_URL": "http://studio"})
    choice = NetworkChoice("pixels", "a test")
    wish = Wish(ProjectConfig(name="pets"), "s3://images/p/", ("cat", "<b>"), choose=lambda: choice)

    def wired(wish: Wish) -> ProjectRecord:
        return wire(studio_of(api), store, settings, wish)[0]

    record = wired(wish)
    held = api.projects[record.id]
    assert held["show_instruction"] is True
    assert "<b>1</b> cat, <b>2</b> &lt;b&gt;" in held["expert_instruction"]
    assert api.hotkeys == {SUBMIT: ENTER}
    assert (record.made, store.get(record.key).made) == (True, True)
    assert wired(replace(wish, adopt=record.id)).made  # `init` and `up` again
    theirs = api.project("theirs", make_label_config(["cat", "dog"]))
    assert not wired(replace(wish, adopt=theirs["id"])).made
    assert "expert_instruction" not in api.projects[theirs["id"]]
    raw = dump_record(record).replace(b'"made":true,', b"")
    assert not load_record(raw, record.key).made
