"""Tasks and answers that Label Studio cannot give out, or gives out broken: each costs itself, and is told."""

from __future__ import annotations

from typing import Any

import pytest

from labelloop.errors import StudioError
from labelloop.labels.results import make_label_config, parse_label_config
from labelloop.records.tasks import Annotation, Task
from labelloop.rules.uncounted import uncounted
from labelloop.studio.archive import StudioArchive
from labelloop.studio.client import Studio, task_link
from labelloop.studio.pieces import NO_ANSWER, NO_DATA, Pieces
from sync.answers.feed import Feed
from tests.fakes.studio_api import StudioApi, studio_of

XML = make_label_config(["cat", "dog"])
SCHEMA = parse_label_config(XML)
BROKEN = [{**SCHEMA.result("cat")[0], "value": {"choices": ["\ud800"]}}]


@pytest.fixture
def api() -> StudioApi:
    return StudioApi()


@pytest.fixture
def studio(api: StudioApi) -> Studio:
    return studio_of(api)


@pytest.fixture
def project(api: StudioApi) -> int:
    """Nine tasks with an answer each."""
    number = int(api.project("pets", XML)["id"])
    for i in range(9):
        api.annotate(api.task(number, {"image": f"s3://images/{i}.png"}), result=SCHEMA.result("cat"))
    return number


def ids(api: StudioApi, project: int) -> list[int]:
    return [row["id"] for row in api.of_project(project)]


def labels(tasks: list[Task]) -> dict[int, str | None]:
    return {task.id: task.label for task in tasks}


def test_an_answer_that_breaks_the_export_costs_itself(api: StudioApi, studio: Studio, project: int) -> None:
    fifth = ids(api, project)[4]
    api.annotate(fifth, result=BROKEN)
    tasks = studio.tasks(project, SCHEMA, ids(api, project))
    assert labels(tasks) == dict.fromkeys(ids(api, project), "cat")  # the task's own first answer, too
    task = next(t for t in tasks if t.id == fifth)
    assert (task.uri, [a.problem for a in task.annotations]) == ("s3://images/4.png", [None, NO_ANSWER])


def test_a_task_that_breaks_the_list_costs_itself(api: StudioApi, studio: Studio, project: int) -> None:
    third = ids(api, project)[2]
    api.rows[third]["data"]["note"] = "\udc80"
    (page,) = studio.all_tasks(project, SCHEMA)
    assert {s.id: s.problem for s in page} == {i: NO_DATA if i == third else None for i in ids(api, project)}
    assert [s.uri for s in page].count("") == 1
    assert len(labels(studio.tasks(project, SCHEMA, ids(api, project)))) == 9


def test_the_feed_goes_on_and_tells(api: StudioApi, studio: Studio, project: int) -> None:
    feed = Feed(studio, project, SCHEMA, shown=lambda _uri, answer: answer.seen)
    third, fifth = ids(api, project)[2], ids(api, project)[4]
    feed.reconcile()
    api.rows[third]["data"]["note"] = "\udc80"
    api.rows[third]["updated_at"] = api._now()
    api.annotate(fifth, result=BROKEN)
    last = api.task(project, {"image": "s3://images/new.png"})
    api.annotate(last, result=SCHEMA.result("dog"))
    feed.poll()
    assert feed.tasks[last].label == "dog"
    assert feed.unreadable == {third: NO_DATA}
    assert feed.tasks[third].uri == "s3://images/2.png"  # what is known of it stays
    assert feed.deleted == set()
    (row,) = uncounted(feed.tasks.values(), SCHEMA, lambda task: task_link("http://studio/", project, task))
    assert (row.reason, row.count, row.links) == (
        NO_ANSWER,
        1,
        (f"http://studio/projects/{project}/data?task={fifth}",),
    )
    del api.rows[third]["data"]["note"]
    feed.reconcile()
    assert feed.unreadable == {}


def test_rows_without_a_number_are_told_and_stop_no_page(api: StudioApi, studio: Studio, project: int) -> None:
    api.rows[10**6] = {"project": project, "id": None, "data": None, "annotations": [], "updated_at": api._now()}
    feed = Feed(studio, project, SCHEMA, shown=lambda _uri, answer: answer.seen)
    feed.reconcile()
    assert len(feed.tasks) == 9
    assert list(feed.unreadable.values()) == ["a task came as an object without a number that can be read"]


def test_a_server_that_fails_on_everything_says_nothing_of_tasks(api: StudioApi, studio: Studio, project: int) -> None:
    def call(method: str, path: str, **_: Any) -> Any:
        raise StudioError(f"Label Studio answered 500 to {method} {path}", status=500)

    api.call = call  # type: ignore[method-assign]
    studio._call = call
    with pytest.raises(StudioError):
        studio.tasks(project, SCHEMA, [1, 2, 3])
    with pytest.raises(StudioError):
        list(studio.all_tasks(project, SCHEMA))


def test_one_broken_task_among_many_costs_few_requests(api: StudioApi, project: int) -> None:
    for i in range(91):
        api.annotate(api.task(project, {"image": f"s3://images/more{i}.png"}), result=SCHEMA.result("cat"))
    api.annotate(ids(api, project)[50], result=BROKEN)
    api.asked.clear()
    assert len(Pieces(api).export(project, ids(api, project))) == 100
    assert len(api.asked) < 25


def test_a_backup_takes_along_what_it_can_and_tells_the_rest(api: StudioApi, studio: Studio, project: int) -> None:
    third, fifth = ids(api, project)[2], ids(api, project)[4]
    api.rows[third]["data"]["note"] = "\udc80"
    api.annotate(fifth, result=BROKEN)
    archive = StudioArchive(studio)
    (page,) = archive.tasks(project)
    assert [task.id for task in page] == [i for i in ids(api, project) if i != third]
    assert [line.partition(":")[0] for line in archive.damaged] == [
        f"answer {api.rows[fifth]['annotations'][1]['id']} of task {fifth}", f"task {third}",
    ]  # fmt: skip


def test_the_ground_truth_counts_whoever_answers_later() -> None:
    truth = Annotation(1, "2026-01-01", "2026-01-01", "cat", ground_truth=True)
    later = Annotation(2, "2026-01-02", "2026-01-02", "dog")
    assert Task(1, "s3://b/x.png", "t", (truth, later)).label == "cat"
    skipped = Annotation(1, "2026-01-01", "2026-01-01", None, cancelled=True, ground_truth=True)
    assert Task(1, "s3://b/x.png", "t", (skipped, later)).label == "dog"


def test_every_answer_that_does_not_count_is_told_by_its_reason() -> None:
    def answer(number: int, label: str | None, **more: Any) -> Annotation:
        return Annotation(number, "2026-01-01", "2026-01-01", label, **more)

    reasons = uncounted(
        [
            Task(1, "s3://b/1.png", "t", (answer(1, "cat"), answer(2, None), answer(3, None, cancelled=True))),
            Task(2, "s3://b/2.png", "t", (answer(4, None, problem="2 classes chosen, one is expected"),)),
            Task(3, "", "t", (answer(5, "cat"),)),
            Task(4, "s3://b/4.png", "t", (answer(6, "bird"),)),
            *[Task(i, f"s3://b/{i}.png", "t", (answer(i, None),)) for i in range(10, 18)],
        ],
        SCHEMA, str,
    )  # fmt: skip
    counts = {row.reason.split(" ")[0]: row.count for row in reasons}
    assert counts == {"nothing": 9, "2": 1, "class": 1, "the": 1}
    assert reasons[0].tasks == (1, 10, 11, 12, 13)
    assert reasons[0].told == "9 × nothing chosen: 1 10 11 12 13 …"


def test_a_class_of_its_own_for_every_answer_makes_no_endless_list() -> None:
    tasks = [
        Task(i, "s3://b/x.png", "t", (Annotation(i, "2026-01-01", "2026-01-01", f"class {i}"),)) for i in range(1, 301)
    ]
    reasons = uncounted(tasks, SCHEMA, str)
    assert (len(reasons), sum(row.count for row in reasons)) == (51, 300)
    assert (reasons[-1].reason, len(reasons[-1].links)) == ("one of 250 more reasons", 5)
