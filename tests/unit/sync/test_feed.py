"""The change feed: what moved is fetched, what did not is not, and nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from labelloop.errors import StudioError
from labelloop.labels.results import LabelSchema
from labelloop.records.tasks import Annotation, QueuePlace, Seen, Task
from labelloop.studio.rows import TaskStub
from sync.answers.feed import OVERLAP_EVERY_S, Changes, Feed, Shown
from tests.fakes.studio import FakeStudio

SCHEMA = LabelSchema("label", "image", "image", ("cat", "dog"))


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(SCHEMA, page=3)


def as_told(_uri: str, annotation: Annotation) -> Seen | None:
    return annotation.seen


def feed_of(studio: FakeStudio, shown: Shown = as_told) -> Feed:
    return Feed(studio, 1, SCHEMA, shown=shown)


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
    assert studio.fetched == [tasks[2], tasks[0]]  # the last to make sure that it is gone


def test_the_hidden_answer_of_a_blind_task_is_kept_at_first_sight(studio: FakeStudio) -> None:
    task = studio.add_task("s3://images/1")
    studio.push(1, SCHEMA, "v3", [(task, QueuePlace("s3://images/1", 0.1, "dog", 0.9, True, "quota"))])
    studio.model_version = "v3"
    annotation = studio.annotate(task, "cat")
    feed = feed_of(studio, lambda _uri, _answer: Seen("v3", "dog", blind=True))
    feed.poll()
    assert feed.tasks[task].annotations[0].seen == Seen("v3", "dog", blind=True)
    studio.change_annotation(task, annotation, "dog")
    later = feed_of(studio)  # the order has long been replaced
    later.begin(feed.tasks)
    later.poll()
    assert later.tasks[task].annotations[0].seen == Seen("v3", "dog", blind=True)


def test_what_somebody_gave_stays_known_when_somebody_else_corrects_it(studio: FakeStudio) -> None:
    task = studio.add_task("s3://images/1")
    annotation = studio.annotate(task, "cat")
    feed = feed_of(studio)

    def given() -> tuple[str | None, str | None]:
        feed.poll()
        (found,) = feed.tasks[task].annotations
        return found.label, found.given

    assert given() == ("cat", None)
    studio.change_annotation(task, annotation, "dog", by=2)
    assert given() == ("dog", "cat")
    studio.change_annotation(task, annotation, "dog", by=2)  # e.g. marked as ground truth
    assert given() == ("dog", "cat")
    studio.change_annotation(task, annotation, "cat", by=2)
    assert given() == ("cat", None)
    studio.change_annotation(task, annotation, "dog")  # their own second thoughts
    assert given() == ("dog", None)


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
    feed.frozen()
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
    assert feed.task_index.tasks_of == {}


class Counting(FakeStudio):
    """Counts what is asked, and how much is answered."""

    requests = stubs = 0

    def changes(self, project: int, schema: LabelSchema, since: str) -> Iterator[list[TaskStub]]:
        self.requests += 1
        for page in super().changes(project, schema, since):
            self.stubs += len(page)
            yield page

    def task_count(self, project: int, between: tuple[int, int] | None = None) -> int:
        self.requests += 1
        return super().task_count(project, between)

    def task_ids(self, project: int, between: tuple[int, int]) -> set[int]:
        self.requests += 1
        return super().task_ids(project, between)


def test_a_few_deleted_tasks_among_many_are_found_by_a_few_requests() -> None:
    studio = Counting(SCHEMA)
    tasks = [studio.add_task(f"s3://images/{i}") for i in range(20_000)]
    studio.annotate(tasks[12_345], "cat")
    feed = feed_of(studio)
    feed.poll()
    for task in (tasks[3], tasks[12_345], tasks[-1]):
        studio.delete_task(task)
    studio.requests = 0
    assert feed.surplus() == 3
    assert feed.find_deleted(3) == Changes(gone=1)
    assert studio.requests < 40
    assert feed.surplus() == 0
    assert feed.deleted == {"s3://images/3", "s3://images/12345", "s3://images/19999"}
    assert feed.dirty


def test_many_deleted_tasks_are_left_to_a_reading_of_everything() -> None:
    studio = Counting(SCHEMA)
    tasks = [studio.add_task(f"s3://images/{i}") for i in range(40_000)]
    feed = feed_of(studio)
    feed.poll()
    for task in tasks[::100]:
        studio.delete_task(task)
    assert feed.find_deleted(feed.surplus()) is None
    feed.reconcile()
    assert feed.surplus() == 0


def test_a_sweep_between_polls_finds_what_is_gone_and_loses_nothing(studio: FakeStudio) -> None:
    tasks = [studio.add_task(f"s3://images/{i}") for i in range(10)]
    for task in tasks[:4]:
        studio.annotate(task, "cat")
    feed = feed_of(studio)
    feed.poll()
    feed.frozen()
    studio.delete_task(tasks[0])
    done = False
    steps: list[Callable[[], object]] = [
        lambda: studio.annotate(tasks[5], "dog"), lambda: studio.touch(tasks[6]), lambda: studio.add_task("s3://images/x"),
        lambda: studio.delete_task(tasks[9]),
    ]  # fmt: skip
    while not done:
        _, done = feed.sweep()
        if steps:
            steps.pop(0)()
            feed.poll()
    feed.poll()
    assert tasks[0] not in feed.task_index
    assert tasks[0] not in feed.tasks
    assert feed.tasks.keys() == {*tasks[1:4], tasks[5]}
    assert feed.moved == {tasks[0], tasks[5]}
    assert len(feed.task_index.tasks_of["s3://images/x"]) == 1


def test_a_sweep_that_breaks_off_does_not_take_the_rest_for_deleted() -> None:
    studio = Breaking(SCHEMA, page=2)
    tasks = [studio.add_task(f"s3://images/{i}") for i in range(9)]
    studio.annotate(tasks[8], "cat")
    feed = feed_of(studio)
    feed.poll()
    feed.sweep()
    studio.breaks = True
    with pytest.raises(StudioError):
        feed.sweep()
    studio.breaks = False
    done = False
    while not done:
        changes, done = feed.sweep()
        assert not changes
    assert len(feed.task_index) == 9
    assert feed.deleted == set()


class Breaking(FakeStudio):
    """Answers some pages with an error."""

    breaks = False

    def changes(self, project: int, schema: LabelSchema, since: str) -> Iterator[list[TaskStub]]:
        for page in super().changes(project, schema, since):
            if self.breaks:
                raise StudioError("away")
            yield page


def test_what_a_sweep_could_not_fetch_is_fetched_by_its_next_page() -> None:
    studio = Interrupted(SCHEMA, page=2)
    tasks = [studio.add_task(f"s3://images/{i}") for i in range(6)]
    for task in tasks:
        studio.annotate(task, "cat")
    feed = feed_of(studio)
    studio.fails = True
    with pytest.raises(StudioError):
        feed.sweep()
    feed.reconcile()
    assert feed.tasks.keys() == set(tasks)


def test_a_task_that_seems_to_be_gone_is_asked_for_before_its_labels_go() -> None:
    studio = Hiding(SCHEMA)
    task = studio.add_task("s3://images/1")
    studio.annotate(task, "cat")
    feed = feed_of(studio)
    feed.poll()
    studio.hidden = True
    feed.reconcile()
    assert feed.tasks[task].label == "cat"


class Hiding(FakeStudio):
    """Passes over every task in its pages, as paging by number may do where rows move."""

    hidden = False

    def changes(self, project: int, schema: LabelSchema, since: str) -> Iterator[list[TaskStub]]:
        return iter(()) if self.hidden else super().changes(project, schema, since)


def test_what_an_import_left_within_the_overlap_is_not_read_by_every_poll() -> None:
    studio, now = Counting(SCHEMA), [0.0]
    feed = Feed(studio, 1, SCHEMA, shown=as_told, clock=lambda: now[0])
    for i in range(10):
        studio.add_task(f"s3://images/{i}")
    feed.poll()
    read = []
    for _ in range(100):
        now[0] += 1
        studio.stubs = 0
        feed.poll()
        read.append(studio.stubs)
    assert all(read[: int(OVERLAP_EVERY_S) - 1])
    assert sum(map(bool, read[int(OVERLAP_EVERY_S) + 1 :])) <= 3
    studio.annotate(1, "cat")
    assert feed.poll().tasks == 1


def test_an_id_that_is_used_again_is_another_task(studio: FakeStudio) -> None:
    task = studio.add_task("s3://images/1")
    studio.annotate(task, "cat")
    feed = feed_of(studio)
    feed.poll()
    studio.delete_task(task)
    studio.use_again(task, "s3://images/2")
    feed.poll()
    assert feed.tasks == {}
    assert feed.task_index.tasks_of == {"s3://images/2": (task,)}
    assert feed.deleted == {"s3://images/1"}


def test_an_annotation_id_that_is_used_again_is_another_answer(studio: FakeStudio) -> None:
    task = studio.add_task("s3://images/1")
    first = studio.annotate(task, "cat")
    feed = feed_of(studio)
    feed.poll()
    studio.delete_annotation(task, first)
    studio.use_annotation_again(task, first, "dog")
    feed.poll()
    assert feed.tasks[task].label == "dog"


@pytest.mark.parametrize("seed", range(10))
def test_any_history_keeps_the_board_and_what_moved_exact(studio: FakeStudio, seed: int) -> None:
    chance, feed = random.Random(seed), feed_of(studio)
    tasks = [studio.add_task(f"s3://images/{i % 5}") for i in range(12)]
    frozen: dict[int, Task] = {}
    for _ in range(80):
        what, task = chance.random(), chance.choice(tasks)
        if what < 0.5:
            studio.annotate(task, chance.choice(SCHEMA.classes), skip=chance.random() < 0.2)
        elif what < 0.6 and len(tasks) > 3:
            tasks.remove(task)
            studio.delete_task(task)
            if chance.random() < 0.5:
                studio.use_again(task, f"s3://images/{chance.randrange(7)}")
                tasks.append(task)
        elif what < 0.7:
            tasks.append(studio.add_task(f"s3://images/{chance.randrange(7)}"))
        elif what < 0.8 and (given := studio.tasks(1, SCHEMA, [task])[0].annotations):
            studio.delete_annotation(task, given[0].id)
        elif what < 0.9:
            feed.sweep()
        feed.poll()
        if chance.random() < 0.2:
            for i in feed.moved:
                frozen.pop(i, None)
                if i in feed.tasks:
                    frozen[i] = feed.tasks[i]
            feed.frozen()
            assert frozen == feed.tasks
    feed.reconcile()
    stubs = [stub for page in studio.all_tasks(1, SCHEMA) for stub in page]
    shown: dict[str, set[int]] = {}
    unanswered: dict[str, set[int]] = {}
    for stub in stubs:
        shown.setdefault(stub.uri, set()).add(stub.id)
        if not stub.annotations:
            unanswered.setdefault(stub.uri, set()).add(stub.id)
    assert {u: set(ids) for u, ids in feed.task_index.tasks_of.items()} == shown
    assert {u: set(ids) for u, ids in feed.task_index.open.items()} == unanswered
    assert feed.annotations == sum(len(s.annotations) for s in stubs)
    assert not feed.deleted & shown.keys()


def test_a_task_of_the_year_9999_does_not_hide_what_comes_after_it(studio: FakeStudio) -> None:
    late, task = studio.add_task("s3://images/1"), studio.add_task("s3://images/2")
    studio.annotate(late, "dog")
    studio.move_to(late, "9999-12-31T23:59:59.999999Z")
    feed = feed_of(studio)
    assert feed.poll().tasks == 1
    studio.annotate(task, "cat")
    assert feed.poll().tasks == 1
    assert feed.tasks[task].label == "cat"
