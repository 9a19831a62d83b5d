"""Groups and a test set by fields of the task: read with distrust, kept by the watcher, taken over by the workers."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from labelloop.config.key_groups import name_of
from labelloop.config.project import ProjectConfig, parse_config
from labelloop.config.task_fields import Fields, named_fields
from labelloop.errors import FormatError, SettingsError
from labelloop.labels.results import LabelSchema
from labelloop.objects.damage import Damage
from labelloop.objects.storage import MemoryStore
from labelloop.records.given import NOTHING_SAID, Given, Said
from labelloop.records.images import Split
from labelloop.store.projects import ProjectRecord
from labelloop.store.task_groups import SHARDS, TaskGroups, dump, key_of, shard_of
from labelloop.studio.rows import stub_of
from retrain_worker.settle import settle
from sync.answers.feed import Feed
from sync.answers.task_groups import TaskGroupKeeper
from tests.fakes.studio import FakeStudio
from tests.unit.likeness.test_near import png, scene
from tests.unit.worker.test_settle import take, world_of
from tests.unit.worlds.learning import LearningWorld

BUCKETS = {"test": 0.3, "audit": 0.1, "group_by": "field:patient", "test_set": "field:split=test"}
FIELDS = named_fields("field:patient", "field:split=test")
SCHEMA = LabelSchema("label", "image", "image", ("good", "defect"), FIELDS)
HOSTILE = [
    None, [], {}, [["p"]], {"patient": "x"}, "", "  \n", math.nan, math.inf, 2**63, -(10**4000), 1e300, "\ud800",
    "x" * 10**6, "\u202e\x00", True, 0, -0.0, "}{", "field:patient",
]  # fmt: skip


def uri_of(number: int) -> str:
    return f"s3://images/{number:03d}.png"


# --- the setting


def test_a_field_is_read_from_the_config_and_changes_no_default() -> None:
    config = parse_config({"buckets": BUCKETS}, "t")
    assert config.buckets.fields == FIELDS == Fields("patient", ("split", "test"))
    assert not ProjectConfig().buckets.fields
    assert not parse_config({"buckets": {"group_by": "{group}/*", "test_set": "test/"}}, "t").buckets.fields
    assert config.hash != ProjectConfig().hash == parse_config({"buckets": {"group_by": ""}}, "t").hash
    assert named_fields("field:{group}/*", "") == Fields()  # a pattern, as ever
    assert config.buckets.shares().test == 0.0
    assert named_fields("", "field:a=b=c").test == ("a", "b=c")


@pytest.mark.parametrize(
    ("buckets", "message"),
    [
        ({"group_by": "field:"}, "group_by needs the name of a field"),
        ({"group_by": "field: patient"}, "is none"),
        ({"group_by": "field:" + "x" * 201}, "201 characters"),
        ({"group_by": "field:a\nb"}, "needs the name of a field"),
        ({"test_set": "field:split"}, "does not say which value counts, e.g. 'field:split=test'"),
        ({"test_set": "field:split="}, "test_set needs"),
        ({"test_set": "field:=test"}, "test_set needs"),
    ],
)
def test_a_wrong_field_is_refused_in_words(buckets: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_config({"buckets": buckets}, "test.yaml")
    assert message in str(caught.value)


def test_one_name_is_one_group_whichever_program_wrote_it() -> None:
    assert len({FIELDS.of({"patient": value}).group for value in (7, 7.0, "7", " 7 ")}) == 1
    assert FIELDS.of({"patient": "Mu\u0308ller"}) == FIELDS.of({"patient": "M\u00fcller"})
    assert FIELDS.of({"patient": True}).group == name_of("true")
    assert FIELDS.of({"patient": 7.5}).group == name_of("7.5")
    assert FIELDS.of({"split": "test"}) == Said("", test=True)
    assert not FIELDS.of({"split": "Test"}).test
    assert named_fields("", "field:held_out=true").of({"held_out": True}).test
    pattern = parse_config({"buckets": {"group_by": "{group}/*"}}, "t").buckets.given("s3://b/p7/1.png", "s3://b/")
    assert pattern == Given(name_of("p7"))


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:20])
def test_any_json_is_a_group_or_none(value: object) -> None:
    stub = stub_of({"id": 1, "data": {"image": uri_of(1), "patient": value, "split": value}}, SCHEMA)
    said = stub.said
    assert len(said.group) in {0, 64}
    assert not said.test
    raw = dump(FIELDS, {stub.uri: said})
    assert len(raw) < 300
    store = MemoryStore()
    store.put(key_of(shard_of(stub.uri)), raw)
    groups = TaskGroups(store)
    groups.update()
    assert groups.of(stub.uri, FIELDS) == said
    assert [FIELDS.of(data) for data in (None, [], "x", {"other": "p"})] == [NOTHING_SAID] * 4


# --- the watcher


def watched(store: MemoryStore, studio: FakeStudio, fields: Fields = FIELDS) -> tuple[Feed, TaskGroupKeeper]:
    schema = LabelSchema("label", "image", "image", ("good", "defect"), fields)
    feed = Feed(studio, 1, schema, shown=lambda _uri, answer: answer.seen)
    feed.task_groups = keeper = TaskGroupKeeper(fields, store)
    return feed, keeper


def read(store: MemoryStore, uri: str, fields: Fields = FIELDS) -> Said | None:
    groups = TaskGroups(store)
    groups.update()
    return groups.of(uri, fields)


def turn(keeper: TaskGroupKeeper) -> None:
    keeper._at = 0.0
    keeper.turn()


def test_what_tasks_say_follows_whatever_happens_to_them() -> None:
    rng = random.Random(5)
    studio, store = FakeStudio(SCHEMA, page=7), MemoryStore()
    feed, keeper = watched(store, studio)
    tasks: dict[int, tuple[str, object]] = {}
    for step in range(300):
        data = {"patient": rng.choice(["a", "b", 3, None, []]), "split": rng.choice(["test", "train"])}
        what = rng.random()
        if what < 0.5 or not tasks:
            uri = uri_of(rng.randrange(60))
            tasks[studio.add_task(uri, data)] = uri, data
        elif what < 0.8:
            task = rng.choice(sorted(tasks))
            studio.change_data(task, data)
            tasks[task] = tasks[task][0], data
        else:
            task = rng.choice(sorted(tasks))
            studio.delete_task(task)
            del tasks[task]
        if step % 20 == 19:
            feed.poll()
            feed.reconcile()
            turn(keeper)
            if step % 60 == 59:  # a watcher that has just begun
                feed, keeper = watched(store, studio)
                feed.reconcile()
                turn(keeper)
            for uri in map(uri_of, range(60)):
                said = [FIELDS.of(d) for t, (u, d) in sorted(tasks.items()) if u == uri]
                group = next((one.group for one in said if one.group), "")
                assert read(store, uri) == (Said(group, any(s.test for s in said)) if said else None)


def test_nothing_is_written_where_nothing_changed_and_without_a_field_nothing_at_all() -> None:
    studio, store, other = FakeStudio(SCHEMA), MemoryStore(), MemoryStore()
    for number in range(40):
        studio.add_task(uri_of(number), {"patient": number // 4})
    for target, fields in ((store, FIELDS), (other, Fields())):
        feed, keeper = watched(target, studio, fields)
        feed.reconcile()
        turn(keeper)
    assert list(other.list("")) == []
    before = {info.key: info.modified for info in store.list("")}
    assert 1 < len(before) <= len(SHARDS)
    feed, keeper = watched(store, studio)
    feed.reconcile()
    turn(keeper)
    assert {info.key: info.modified for info in store.list("")} == before


def test_a_damaged_record_makes_images_wait_and_is_written_again() -> None:
    studio, store = FakeStudio(SCHEMA), MemoryStore()
    studio.add_task(uri_of(1), {"patient": "a"})
    feed, keeper = watched(store, studio)
    feed.reconcile()
    turn(keeper)
    key = key_of(shard_of(uri_of(1)))
    good, damage = store.get(key), Damage()
    groups = TaskGroups(store, damage)
    groups.update()
    wrong = [b"", b"[]", good[:-9], good[::-1], good.replace(b":{", b":["), b'{"fields":1,"images":[]}']
    for raw in [*wrong, b'{"fields":"%s","images":{"u":7}}', b'{"fields":"","images":{"u":"short"}}']:
        store.put(key, raw)
        groups.update()
        assert groups.of(uri_of(1), FIELDS) is None
        assert damage.keys() == [key]
    keeper.repair([key])
    groups.update()
    assert (groups.of(uri_of(1), FIELDS), damage.keys()) == (Said(name_of("a")), [])
    store.put(key, good.replace(b'"format":1', b'"format":9'))
    with pytest.raises(FormatError):
        groups.update()


def test_what_was_kept_under_another_field_says_nothing() -> None:
    studio, store = FakeStudio(SCHEMA), MemoryStore()
    studio.add_task(uri_of(1), {"patient": "a"})
    feed, keeper = watched(store, studio)
    feed.reconcile()
    turn(keeper)
    assert read(store, uri_of(1), named_fields("field:lot", "")) is None


# --- the workers


def keeper_of(world: LearningWorld) -> TaskGroupKeeper:
    record: ProjectRecord = world.project.record
    return TaskGroupKeeper(record.config.buckets.fields, world.project.store)


def test_images_of_a_patient_stand_in_one_bucket_and_the_test_set_is_theirs(tmp_path: Path) -> None:
    world = world_of(tmp_path, buckets=BUCKETS)
    keeper = keeper_of(world)
    for number in range(60):
        split = "test" if number % 20 < 4 else "train"
        keeper.put(number, uri_of(number), FIELDS.of({"patient": f"p{number // 4}", "split": split}))
    turn(keeper)
    placed = take(world, {uri_of(i): png(scene(i)) for i in range(60)})
    groups = {(int(f.uri[-7:-4]) // 4, f.group, f.bucket) for f in placed}
    assert len(groups) == len({f.group for f in placed}) == 15
    assert len({f.twins for f in placed}) == 60
    assert {f.uri for f in placed if f.bucket is Split.TEST} == {uri_of(i) for i in range(60) if i % 20 < 4}
    keeper.put(99, uri_of(99), FIELDS.of({"patient": "p1"}))
    turn(keeper)
    late = take(world, {uri_of(99): png(scene(99))})[0]
    assert (late.group, late.bucket) in {(f.group, f.bucket) for f in placed if f.uri in {uri_of(4), uri_of(7)}}


def test_an_image_waits_for_its_task_and_one_that_says_nothing_does_not(tmp_path: Path) -> None:
    world = world_of(tmp_path, buckets={**BUCKETS, "test_set": ""})
    fields, keeper = world.config.buckets.fields, keeper_of(world)
    keeper.put(1, uri_of(1), fields.of({"patient": "a"}))
    keeper.put(2, uri_of(2), fields.of({"patient": []}))
    turn(keeper)
    one, two, three = take(world, {uri_of(i): png(scene(i)) for i in (1, 2, 3)})
    assert (one.group, two.group, three.group) == (name_of("a"), two.sha256, "")
    keeper.put(3, uri_of(3), fields.of({"patient": "a"}))
    turn(keeper)
    assert settle(world.project) == 1
    world.project.catalogue.update()
    assert world.project.catalogue.images[uri_of(3)].group == name_of("a")
