"""The change feed: what moved is fetched, what did not is not, and nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from labelloop.errors import StudioError
from labelloop.labels import LabelSchema
from labelloop.records import Choice, Seen, Task
from sync.feed import Feed
from tests.fakes.studio import FakeStudio

SCHEMA = LabelSchema("label", "image", "image", ("cat", "dog"))


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(SCHEMA, page=3)


def feed_of(studio: FakeStudio, hidden: str | None = None) -> Feed:
    return Feed(studio, 1, SCHEMA, hidden=lambda _version, _uri: hidden)


def test_only_what_moved_is_fetched(studio: FakeStudio) -> None:
    tasks = [studio.add_task(f"s3://images/{i}") for i in range(10)]
    feed = feed_of(studio)
    assert not feed.poll()
    studio.annotate(tasks[4], "cat")
    assert feed.poll().tasks == 1
    studio.touch(tasks[5])
    assert not feed.poll()
    assert studio.fetched == [tasks[4]]
    assert feed.tasks[tasks[4]].label == "cat"


def test_create_change_skip_and_delete_arrive(studio: FakeStudio) -> None:
    task = studio.add_task("s3://images/1")
    feed = feed_of(studio)
    one = studio.annotate(task, "cat")
    feed.poll()
    studio.change_annotation(task, one, "dog")
    feed.poll()
    assert feed.tasks[task].label == "dog"
    two = studio.annotate(task, None, skip=True)
    feed.poll()
    assert feed.tasks[task].label == "dog"
    assert len(feed.tasks[task].annotations) == 2
    studio.delete_annotation(task, one)
    feed.poll()
    assert feed.tasks[task].label is None
    assert feed.tasks[task].skipped
    studio.delete_annotation(task, two)
    assert feed.poll()
    assert task not in feed.tasks


def test_a_deleted_task_is_seen_by_its_count_and_gone_after_a_reconcile(studio: FakeStudio) -> None:
    tasks = [studio.add_task(f"s3://images/{i}") for i in range(4)]
    studio.annotate(tasks[0], "cat")
    feed = feed_of(studio)
    feed.poll()
    assert not feed.task_count_differs()
    studio.delete_task(tasks[0])
    studio.delete_task(tasks[1])
    assert not feed.poll()
    assert feed.task_count_differs()
    assert feed.reconcile().gone == 1
    assert feed.tasks == {}
    assert not feed.task_count_differs()


def test_what_happened_while_nobody_watched_is_found(studio: FakeStudio) -> None:
    tasks = [studio.add_task(f"s3://images/{i}") for i in range(5)]
    ids = [studio.annotate(t, "cat") for t in tasks]
    before = feed_of(studio)
    before.poll()
    studio.delete_task(tasks[0])
    studio.delete_annotation(tasks[1], ids[1])
    studio.change_annotation(tasks[2], ids[2], "dog")
    studio.fetched.clear()
    after = feed_of(studio)
    after.begin(before.tasks)
    after.reconcile()
    assert {i: t.label for i, t in after.tasks.items()} == {tasks[2]: "dog", tasks[3]: "cat", tasks[4]: "cat"}
    assert studio.fetched == [tasks[2]]


def test_the_hidden_answer_of_a_blind_task_is_kept_at_first_sight(studio: FakeStudio) -> None:
    task = studio.add_task("s3://images/1")
    studio.push(1, SCHEMA, "v3", [(task, Choice("s3://images/1", 0.1, "dog", 0.9, True, "quota"))])
    studio.model_version = "v3"
    annotation = studio.annotate(task, "cat")
    feed = feed_of(studio, hidden="dog")
    feed.poll()
    assert feed.tasks[task].annotations[0].seen == Seen("v3", "dog", blind=True)
    studio.change_annotation(task, annotation, "dog")
    later = feed_of(studio, hidden=None)  # the order has long been replaced
    later.begin(feed.tasks)
    later.poll()
    assert later.tasks[task].annotations[0].seen == Seen("v3", "dog", blind=True)


@pytest.mark.parametrize("seed", range(20))
def test_any_history_read_at_any_moments_ends_equal_to_the_server(studio: FakeStudio, seed: int) -> None:
    chance = random.Random(seed)
    feed = feed_of(studio)
    tasks = [studio.add_task(f"s3://images/{i}") for i in range(8)]
    given: list[tuple[int, int]] = []
    for _ in range(120):
        what = chance.random()
        if what < 0.5 or not given:
            task = chance.choice(tasks)
            given.append((task, studio.annotate(task, chance.choice(SCHEMA.classes), skip=chance.random() < 0.2)))
        elif what < 0.7:
            studio.change_annotation(*chance.choice(given), chance.choice(SCHEMA.classes))
        elif what < 0.85:
            studio.delete_annotation(*given.pop(chance.randrange(len(given))))
        elif len(tasks) > 2 and what < 0.9:
            gone = tasks.pop(chance.randrange(len(tasks)))
            studio.delete_task(gone)
            given = [g for g in given if g[0] != gone]
        if chance.random() < 0.3:
            feed.poll()
        if chance.random() < 0.05:
            feed = feed_of(studio)  # killed and started again, without a snapshot
    feed.reconcile()
    wanted = {t.id: t for t in studio.tasks(1, SCHEMA, tasks) if t.annotations}
    assert {i: t.annotations for i, t in feed.tasks.items()} == {i: t.annotations for i, t in wanted.items()}


def test_a_task_that_was_removed_is_remembered_until_it_is_back(studio: FakeStudio) -> None:
    task = studio.add_task("s3://images/1")
    feed = feed_of(studio)
    feed.poll()
    studio.delete_task(task)
    feed.reconcile()
    assert feed.deleted == {"s3://images/1"}
    studio.add_task("s3://images/1")
    feed.poll()
    assert feed.deleted == set()


class Interrupted(FakeStudio):
    """Fails once when tasks are asked for in full."""

    fails = False

    def tasks(self, project: int, schema: LabelSchema, ids: Sequence[int]) -> list[Task]:
        if self.fails:
            self.fails = False
            raise StudioError("away")
        return super().tasks(project, schema, ids)


def test_what_could_not_be_fetched_is_fetched_by_the_next_poll() -> None:
    studio = Interrupted(SCHEMA)
    one, two = studio.add_task("s3://images/1"), studio.add_task("s3://images/2")
    feed = feed_of(studio)
    feed.poll()
    studio.annotate(one, "cat")
    for _ in range(20):
        studio.touch(two)  # half a minute passes
    studio.annotate(two, "dog")
    studio.fails = True
    with pytest.raises(StudioError):
        feed.poll()
    assert feed.poll()
    assert feed.dirty
    assert {t.label for t in feed.tasks.values()} == {"cat", "dog"}


def test_changes_stay_dirty_until_they_are_frozen(studio: FakeStudio) -> None:
    task = studio.add_task("s3://images/1")
    feed = feed_of(studio)
    feed.poll()
    assert not feed.dirty
    annotation = studio.annotate(task, "cat")
    feed.poll()
    assert feed.dirty
    feed.poll()
    assert feed.dirty
    feed.dirty = False
    studio.delete_annotation(task, annotation)
    feed.poll()
    assert feed.dirty


def test_labels_of_a_class_that_was_added_later_are_read_again(studio: FakeStudio) -> None:
    task = studio.add_task("s3://images/1")
    studio.annotate(task, "cat")
    known = {task: replace(studio.tasks(1, SCHEMA, [task])[0])}
    annotation = replace(known[task].annotations[0], label=None, problem="class 'cat' is not in the label config")
    feed = feed_of(studio)
    feed.begin({task: replace(known[task], annotations=(annotation,))})
    feed.reconcile()
    assert feed.tasks[task].label == "cat"


def test_a_task_without_an_image_is_kept_and_harmless(studio: FakeStudio) -> None:
    studio.annotate(studio.add_task(""), "cat")
    feed = feed_of(studio)
    assert feed.poll()
    assert not feed.poll()
    assert feed.task_of == {}
