"""What the watcher relies on in Label Studio: the same tests over `FakeStudio` and over the real server.

The fake is only worth something as long as both pass.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import pytest

from labelloop.errors import StudioError
from labelloop.labels.results import LabelSchema, make_label_config, parse_label_config
from labelloop.records.tasks import Annotation, QueuePlace, Seen, Task
from labelloop.studio.client import Studio, TaskFeed
from labelloop.studio.pieces import NO_DATA
from labelloop.studio.rows import TaskStub
from sync.answers.feed import EPOCH, Feed
from tests.acceptance.conftest import Loop, send
from tests.fakes.studio import FakeStudio

CLASSES = ("cat", "dog")
CONFIG = make_label_config(CLASSES)
SCHEMA = parse_label_config(CONFIG)
PAGE = 4  # tasks per page, so that a few make several


class World(Protocol):
    """One empty project, the feed that is tested, and what people do."""

    feed: TaskFeed
    project: int

    def add_task(self, uri: str) -> int: ...

    def annotate(self, task: int, label: str | None, *, skip: bool = False) -> int: ...

    def annotate_raw(self, task: int, result: Any) -> None:
        """Whatever a script sends; the server may answer 500 and keep it all the same."""

    def confirm_in_bulk(self, task: int) -> None:
        """The data manager's "Create Annotations From Predictions"."""

    def mark_ground_truth(self, task: int, annotation: int) -> None: ...

    def delete_empty(self, task: int, answer: Annotation) -> bool: ...

    def spoil(self, task: int) -> None:
        """Put a half of a character into a task's data."""

    def opened(self, task: int) -> Any:
        """The prediction that a page shows which is opened now."""

    def answer_page(self, task: int, label: str, shown: Any) -> int:
        """Submit from a page that was opened with this prediction."""

    def change(self, task: int, annotation: int, label: str) -> None: ...

    def delete_annotation(self, task: int, annotation: int) -> None: ...

    def replace_annotation(self, task: int, annotation: int, label: str) -> None:
        """Delete it, then answer anew; where the server uses ids again, under the same one."""

    def delete_task(self, task: int) -> None: ...

    def touch(self, task: int) -> None:
        """Move the task's time without touching its annotations."""

    def push(self, version: str, places: list[tuple[int, QueuePlace]]) -> int: ...

    def switch(self, version: str) -> None: ...

    def counts(self) -> dict[str, int]: ...

    def predicted(self, version: str) -> set[int]: ...

    def retire(self, version: str) -> int: ...


class FakeWorld:
    def __init__(self) -> None:
        self.fake = FakeStudio(SCHEMA, page=PAGE)
        self.feed: TaskFeed = self.fake
        self.project = 1
        self.add_task, self.delete_task, self.touch = self.fake.add_task, self.fake.delete_task, self.fake.touch
        self.annotate, self.change, self.opened = self.fake.annotate, self.fake.change_annotation, self.fake.opened
        self.delete_annotation = self.fake.delete_annotation
        self.annotate_raw, self.spoil = self.fake.annotate_raw, self.fake.spoil
        self.confirm_in_bulk, self.delete_empty = self.fake.confirm_in_bulk, self.fake.delete_empty
        self.mark_ground_truth = self.fake.mark_ground_truth

    def answer_page(self, task: int, label: str, shown: Any) -> int:
        return self.fake.annotate(task, label, page=shown)

    def replace_annotation(self, task: int, annotation: int, label: str) -> None:
        self.fake.delete_annotation(task, annotation)
        self.fake.use_annotation_again(task, annotation, label)

    def push(self, version: str, places: list[tuple[int, QueuePlace]]) -> int:
        return self.fake.push(1, SCHEMA, version, places)

    def switch(self, version: str) -> None:
        self.fake.update_project(1, model_version=version)

    def counts(self) -> dict[str, int]:
        return self.fake.prediction_counts(1)

    def predicted(self, version: str) -> set[int]:
        return self.fake.predicted_tasks(1, version)

    def retire(self, version: str) -> int:
        return self.fake.delete_predictions(1, version)


class RealWorld:
    def __init__(self, studio: Studio, token: str) -> None:
        self.studio, self._token = studio, token
        self.feed: TaskFeed = studio
        self.project = studio.create_project("contract", CONFIG).id
        self._version: str | None = None
        self.delete_empty = studio.delete_empty

    def close(self) -> None:
        self._call("DELETE", f"api/projects/{self.project}/")

    def add_task(self, uri: str) -> int:
        path = f"api/projects/{self.project}/import"
        answer = self._call("POST", path, params={"return_task_ids": "true"}, json=[{SCHEMA.data_key: uri}])
        return int(answer["task_ids"][0])

    def annotate(self, task: int, label: str | None, *, skip: bool = False) -> int:
        result = SCHEMA.result(label) if label and not skip else []
        return self.studio.annotate(task, result, skip=skip, prediction=self.opened(task))

    def confirm_in_bulk(self, task: int) -> None:
        params = {"id": "predictions_to_annotations", "project": self.project}
        chosen = {"all": False, "included": [task]}
        body = {"selectedItems": chosen, "ordering": [], "project": self.project}
        self._call("POST", "api/dm/actions/", params=params, json=body)

    def mark_ground_truth(self, _task: int, annotation: int) -> None:
        self._call("PATCH", f"api/annotations/{annotation}/", json={"ground_truth": True})

    def annotate_raw(self, task: int, result: Any) -> None:
        send(self.studio.url, self._token, "POST", f"api/tasks/{task}/annotations/", {"result": result})

    def spoil(self, task: int) -> None:
        body = {"data": {SCHEMA.data_key: "s3://images/1.png", "note": "\ud800"}}
        send(self.studio.url, self._token, "PATCH", f"api/tasks/{task}/", body)

    def answer_page(self, task: int, label: str, shown: Any) -> int:
        return self.studio.annotate(task, SCHEMA.result(label), prediction=shown)

    def change(self, _task: int, annotation: int, label: str) -> None:
        self._call(
            "PATCH", f"api/annotations/{annotation}/", json={"result": SCHEMA.result(label), "was_cancelled": False}
        )

    def delete_annotation(self, _task: int, annotation: int) -> None:
        self.studio.delete_annotation(annotation)

    def replace_annotation(self, task: int, annotation: int, label: str) -> None:
        self.studio.delete_annotation(annotation)
        self.annotate(task, label)

    def delete_task(self, task: int) -> None:
        self.studio.delete_task(task)

    def touch(self, task: int) -> None:
        self._call("PATCH", f"api/tasks/{task}/", json={"meta": {"touched": True}})

    def push(self, version: str, places: list[tuple[int, QueuePlace]]) -> int:
        return self.studio.push(self.project, SCHEMA, version, places)

    def switch(self, version: str) -> None:
        self.studio.update_project(self.project, model_version=version)
        self._version = version

    def counts(self) -> dict[str, int]:
        return self.studio.prediction_counts(self.project)

    def predicted(self, version: str) -> set[int]:
        return self.studio.predicted_tasks(self.project, version)

    def retire(self, version: str) -> int:
        return self.studio.delete_predictions(self.project, version)

    def opened(self, task: int) -> int | None:
        if self._version is None:
            return None
        stored = self._call("GET", f"api/tasks/{task}/")["predictions"]
        return next((int(p["id"]) for p in stored if p["model_version"] == self._version), None)

    def _call(self, method: str, path: str, **options: Any) -> Any:
        return self.studio.http.call(method, path, **options)


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    monkeypatch.setattr("labelloop.studio.client.PAGE", PAGE)
    loop: Loop = request.getfixturevalue("loop")
    real = RealWorld(loop.studio, loop.deployment.settings.require_studio_token())
    yield real
    real.close()


def stubs(world: World, since: str = EPOCH) -> list[TaskStub]:
    return [stub for page in world.feed.changes(world.project, SCHEMA, since) for stub in page]


def stub(world: World, task: int) -> TaskStub:
    return next(s for s in stubs(world) if s.id == task)


def newest(world: World) -> str:
    return max(s.updated_at for s in stubs(world))


def whole(world: World, *ids: int) -> list[Task]:
    return sorted(world.feed.tasks(world.project, SCHEMA, list(ids)), key=lambda t: t.id)


class TestContract:
    def test_a_new_task_is_a_change_with_its_image_and_no_annotation(self, world: World) -> None:
        task = world.add_task("s3://images/1.png")
        found = stubs(world)
        assert [(s.id, s.uri, s.annotations, s.cancelled) for s in found] == [(task, "s3://images/1.png", (), 0)]

    def test_only_what_lies_behind_a_time_comes_oldest_first(self, world: World) -> None:
        one, two, three = (world.add_task(f"s3://images/{i}.png") for i in range(3))
        since = newest(world)
        assert stubs(world, since) == []
        world.annotate(two, "cat")
        world.annotate(one, "dog")
        assert [s.id for s in stubs(world, since)] == [two, one]
        assert [s.id for s in stubs(world)] == [three, two, one]

    def test_every_move_of_an_annotation_moves_the_stub(self, world: World) -> None:
        task = world.add_task("s3://images/1.png")
        seen = [stub(world, task)]

        def moved() -> TaskStub:
            assert [s.id for s in stubs(world, seen[-1].updated_at)] == [task]
            seen.append(stub(world, task))
            assert seen[-1].annotations != seen[-2].annotations
            return seen[-1]

        first = world.annotate(task, "cat")
        assert [i for i, _ in moved().annotations] == [first]
        world.change(task, first, "dog")
        assert [i for i, _ in moved().annotations] == [first]
        second = world.annotate(task, None, skip=True)
        assert [i for i, _ in moved().annotations] == sorted([first, second])
        assert seen[-1].cancelled == 1
        world.delete_annotation(task, first)
        assert [i for i, _ in moved().annotations] == [second]
        world.delete_annotation(task, second)
        assert moved().annotations == ()
        assert seen[-1].cancelled == 0

    def test_a_task_that_is_touched_moves_but_its_annotations_do_not(self, world: World) -> None:
        task = world.add_task("s3://images/1.png")
        world.annotate(task, "cat")
        before = stub(world, task)
        world.touch(task)
        after = stub(world, task)
        assert after.updated_at > before.updated_at
        assert after.annotations == before.annotations

    def test_tasks_come_in_full_with_skips_and_without_deleted_ones(self, world: World) -> None:
        labelled, skipped, unanswered, deleted = (world.add_task(f"s3://images/{i}.png") for i in range(4))
        first = world.annotate(labelled, "cat")
        second = world.annotate(labelled, "dog")
        world.annotate(skipped, None, skip=True)
        world.delete_task(deleted)
        found = {t.id: t for t in whole(world, labelled, skipped, unanswered, deleted)}
        assert found.keys() == {labelled, skipped, unanswered}
        assert [(a.id, a.label, a.cancelled) for a in found[labelled].annotations] == [
            (first, "cat", False), (second, "dog", False)]  # fmt: skip
        assert found[labelled].label == "dog"
        assert [(a.label, a.cancelled) for a in found[skipped].annotations] == [(None, True)]
        assert found[unanswered].annotations == ()

    @pytest.mark.parametrize(
        "value", [{"choices": None}, {"choices": [1]}, {"choices": [["a", "cat"]]}, {"choices": ["cat", "dog"]}, None,
                  {"choices": ["\ud800"]}],
    )  # fmt: skip
    def test_an_answer_that_cannot_be_read_costs_itself(self, world: World, value: Any) -> None:
        broken, other = world.add_task("s3://images/1.png"), world.add_task("s3://images/2.png")
        world.annotate(other, "cat")
        world.annotate(broken, "dog")
        world.annotate_raw(broken, [{**SCHEMA.result("cat")[0], "value": value}])
        found = {t.id: t for t in whole(world, broken, other)}
        assert {i: (t.label, len(t.annotations)) for i, t in found.items()} == {other: ("cat", 1), broken: ("dog", 2)}
        assert [a.problem is None for a in found[broken].annotations] == [True, False]
        moves = tuple(sorted((a.id, a.updated_at) for a in found[broken].annotations))
        assert stub(world, broken).annotations == moves  # nothing is read again and again

    def test_a_task_whose_data_cannot_be_given_out_costs_itself(self, world: World) -> None:
        tasks = [world.add_task(f"s3://images/{i}.png") for i in range(PAGE)]
        world.annotate(tasks[1], "cat")
        world.annotate(tasks[2], "dog")
        world.spoil(tasks[1])
        assert {s.id: s.problem for s in stubs(world)} == {t: NO_DATA if t == tasks[1] else None for t in tasks}
        assert stub(world, tasks[1]).uri == ""
        found = {t.id: (t.uri, t.label) for t in whole(world, *tasks)}
        assert found[tasks[1]] == ("", "cat")
        assert found[tasks[2]] == ("s3://images/2.png", "dog")

    def test_an_answer_that_was_copied_from_a_prediction_is_told_from_that_of_a_person(self, world: World) -> None:
        copied, given = world.add_task("s3://images/1.png"), world.add_task("s3://images/2.png")
        places = [(t, QueuePlace("s3://images/1.png", 0.5, "cat", 0.9, blind=False, why="t")) for t in (copied, given)]
        world.push("v1", places)
        world.switch("v1")
        world.confirm_in_bulk(copied)
        world.answer_page(given, "cat", world.opened(given))
        by_hand, in_bulk = (task.annotations[0] for task in reversed(whole(world, copied, given)))
        assert (in_bulk.label, in_bulk.bulk, in_bulk.seen) == ("cat", True, None)
        assert (by_hand.label, by_hand.bulk) == ("cat", False)
        world.change(copied, in_bulk.id, "dog")
        assert [(a.label, a.bulk) for a in whole(world, copied)[0].annotations] == [("dog", False)]

    def test_a_ground_truth_outranks_what_comes_later(self, world: World) -> None:
        task = world.add_task("s3://images/1.png")
        first = world.annotate(task, "cat")
        world.mark_ground_truth(task, first)
        world.annotate(task, "dog")
        assert whole(world, task)[0].label == "cat"

    def test_only_an_empty_answer_as_it_was_recorded_can_be_deleted(self, world: World) -> None:
        task = world.add_task("s3://images/1.png")
        world.annotate(task, "cat")
        world.annotate(task, None, skip=True)
        world.annotate(task, None)
        marked = world.annotate(task, None)
        world.mark_ground_truth(task, marked)
        label, skip, empty, truth = whole(world, task)[0].annotations
        for kept in (label, skip, truth, replace(empty, updated_at=skip.updated_at)):
            assert not world.delete_empty(task, kept)
        assert len(whole(world, task)[0].annotations) == 4
        assert world.delete_empty(task, empty)
        assert not world.delete_empty(task, empty)
        assert whole(world, task)[0].annotations == (label, skip, truth)

    def test_full_tasks_and_stubs_tell_the_same_times(self, world: World) -> None:
        """What is compared to see whether anything moved: else every poll would fetch everything again."""
        task = world.add_task("s3://images/1.png")
        world.annotate(task, "cat")
        world.annotate(task, None, skip=True)
        (found,) = whole(world, task)
        assert tuple(sorted((a.id, a.updated_at) for a in found.annotations)) == stub(world, task).annotations
        assert found.uri == stub(world, task).uri

    def test_a_deleted_task_is_no_change_but_is_no_more_counted(self, world: World) -> None:
        tasks = [world.add_task(f"s3://images/{i}.png") for i in range(3)]
        since = newest(world)
        assert world.feed.task_count(world.project) == 3
        world.delete_task(tasks[1])
        assert stubs(world, since) == []
        assert world.feed.task_count(world.project) == 2
        assert {s.id for s in stubs(world)} == {tasks[0], tasks[2]}

    def test_tasks_can_be_counted_and_named_by_ranges_of_their_ids(self, world: World) -> None:
        tasks = sorted(world.add_task(f"s3://images/{i}.png") for i in range(6))
        world.delete_task(tasks[2])
        assert world.feed.task_count(world.project, (tasks[1], tasks[4])) == 3
        assert world.feed.task_count(world.project, (tasks[2], tasks[2])) == 0
        assert world.feed.task_ids(world.project, (tasks[1], tasks[3])) == {tasks[1], tasks[3]}

    def test_pages_show_every_task_although_rows_move_meanwhile(self, world: World) -> None:
        tasks = [world.add_task(f"s3://images/{i}.png") for i in range(3 * PAGE + 1)]
        met: set[int] = set()
        for number, page in enumerate(world.feed.all_tasks(world.project, SCHEMA)):
            assert len(page) <= PAGE
            met |= {s.id for s in page}
            if number < 3:
                world.touch(tasks[number])  # one that was passed over already goes to the end
                world.touch(tasks[-1 - number])  # and one that is still to come
        assert met == set(tasks)

    def test_pages_that_share_one_time_are_all_shown(self, world: World) -> None:
        tasks = [world.add_task(f"s3://images/{i}.png") for i in range(2 * PAGE)]
        assert {s.id for page in world.feed.all_tasks(world.project, SCHEMA) for s in page} == set(tasks)
        assert {s.id for s in stubs(world, "2000-01-01T00:00:00.000000Z")} == set(tasks)

    def test_an_answer_under_a_used_id_can_be_told_from_the_one_before(self, world: World) -> None:
        task = world.add_task("s3://images/1.png")
        first = world.annotate(task, "cat")
        (before,) = whole(world, task)[0].annotations
        seen = stub(world, task)
        world.replace_annotation(task, first, "dog")
        (after,) = whole(world, task)[0].annotations
        assert (after.id, after.created_at) != (before.id, before.created_at)
        assert after.label == "dog"
        assert stub(world, task).annotations != seen.annotations

    def test_pushed_predictions_move_nothing_and_are_counted_until_they_are_retired(self, world: World) -> None:
        task = world.add_task("s3://images/1.png")
        since = newest(world)
        place = QueuePlace("s3://images/1.png", 0.5, "cat", 0.9, False, "uncertain")
        assert world.push("v1", [(task, place)]) == 1
        assert world.push("v2", [(task, place)]) == 1
        assert stubs(world, since) == []
        assert world.counts() == {"v1": 1, "v2": 1}
        assert world.retire("v1") == 1
        assert world.counts() == {"v2": 1}

    def test_the_tasks_that_have_a_prediction_of_one_version_are_known(self, world: World) -> None:
        uris = [f"s3://images/{i}.png" for i in range(PAGE)]
        tasks = [world.add_task(uri) for uri in uris]
        places = [(t, QueuePlace(u, 0.5, "cat", 0.9, False, "uncertain")) for t, u in zip(tasks, uris, strict=True)]
        world.push("v1", places[:2])
        world.push("v10", places[1:])
        world.push("v2", places)
        assert world.predicted("v1") == set(tasks[:2])
        assert world.predicted("v10") == set(tasks[1:])
        assert world.predicted("v2") == set(tasks)
        assert world.predicted("v3") == set()

    def test_a_version_without_predictions_is_refused(self, world: World) -> None:
        world.add_task("s3://images/1.png")
        with pytest.raises(StudioError) as refused:
            world.switch("v9")
        assert refused.value.status == 400

    @pytest.mark.parametrize("blind", [False, True])
    def test_an_answer_remembers_the_prediction_that_was_shown(self, world: World, blind: bool) -> None:
        task = world.add_task("s3://images/1.png")
        world.push("v1", [(task, QueuePlace("s3://images/1.png", 0.5, "cat", 0.9, blind, "uncertain"))])
        world.switch("v1")
        world.annotate(task, "dog")
        (answer,) = whole(world, task)[0].annotations
        assert answer.seen == (Seen("v1", None, blind=True) if blind else Seen("v1", "cat", probability=0.9))
        assert answer.changed_by is None

    def test_an_answer_is_refused_once_the_prediction_of_its_page_is_gone(self, world: World) -> None:
        task = world.add_task("s3://images/1.png")
        for version in ("v1", "v2"):
            world.push(version, [(task, QueuePlace("s3://images/1.png", 0.5, "cat", 0.9, False, "uncertain"))])
        world.switch("v1")
        page = world.opened(task)
        world.switch("v2")
        world.answer_page(task, "dog", page)
        world.retire("v1")
        with pytest.raises(StudioError) as refused:
            world.answer_page(task, "dog", page)
        assert refused.value.status == 400
        assert [a.label for a in whole(world, task)[0].annotations] == ["dog"]

    @pytest.mark.parametrize("seed", range(2))
    def test_a_feed_over_any_history_ends_equal_to_the_server(self, world: World, seed: int) -> None:
        chance = random.Random(seed)
        feed = Feed(world.feed, world.project, SCHEMA, shown=lambda _uri, answer: answer.seen)
        tasks = [world.add_task(f"s3://images/{i}.png") for i in range(6)]
        given: list[tuple[int, int]] = []
        for _ in range(25):
            what, task = chance.random(), chance.choice(tasks)
            if what < 0.5 or not given:
                given.append((task, world.annotate(task, chance.choice(CLASSES), skip=chance.random() < 0.2)))
            elif what < 0.65:
                world.change(*chance.choice(given), chance.choice(CLASSES))
            elif what < 0.8:
                world.delete_annotation(*given.pop(chance.randrange(len(given))))
            elif what < 0.85 and len(tasks) > 2:
                tasks.remove(task)
                world.delete_task(task)
                given = [g for g in given if g[0] != task]
            else:
                tasks.append(world.add_task(f"s3://images/{chance.randrange(9)}.png"))
            if chance.random() < 0.4:
                feed.poll()
        feed.poll()
        feed.find_deleted(feed.surplus())
        assert {i: t.annotations for i, t in feed.tasks.items()} == {
            t.id: t.annotations for t in whole(world, *tasks) if t.annotations}  # fmt: skip
        assert {s.id: s.uri for s in stubs(world)} == {i: feed.task_index.uri_of(i) for i in feed.task_index.ids()}


def test_the_fake_has_every_method_of_the_feed() -> None:
    feed: TaskFeed = FakeStudio(LabelSchema("label", "image", "image", CLASSES))
    assert feed.task_count(1) == 0
