"""What people did between two snapshots, task by task."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labelloop.records.tasks import Annotation, Task
from labelloop.rules.snapshot_diff import AnnotationCounts, ChangeKind, diff


def answer(number: int, label: str | None, *, at: str = "1", by: int | None = 7, **more: object) -> Annotation:
    given = Annotation(number, "0", at, label, completed_by=by)
    return replace(given, **more)  # type: ignore[arg-type]


def task(*answers: Annotation, number: int = 1, uri: str = "s3://i/1.png") -> Task:
    return Task(number, uri, "0", answers)


CAT, DOG = answer(1, "cat"), answer(1, "dog", at="2")
SKIP = answer(1, None, at="2", cancelled=True)
EMPTY = answer(1, None)


@pytest.mark.parametrize(
    ("before", "after", "what", "classes"),
    [
        (None, task(CAT), ChangeKind.ADDED, (None, "cat")),
        (task(SKIP), task(replace(CAT, updated_at="3")), ChangeKind.ADDED, (None, "cat")),
        (task(CAT), task(DOG), ChangeKind.RELABELLED, ("cat", "dog")),
        (task(CAT), task(CAT, answer(2, "dog", at="3")), ChangeKind.RELABELLED, ("cat", "dog")),
        (task(CAT), None, ChangeKind.REMOVED, ("cat", None)),
        (task(CAT), task(EMPTY), ChangeKind.REMOVED, ("cat", None)),
        (task(SKIP), None, ChangeKind.REMOVED, (None, None)),
        (task(CAT), task(SKIP), ChangeKind.SKIPPED, ("cat", None)),
        (None, task(SKIP), ChangeKind.SKIPPED, (None, None)),
        (task(CAT), task(CAT, answer(2, "cat", at="3")), ChangeKind.REVISED, ("cat", "cat")),
        (task(CAT), task(replace(CAT, ground_truth=True)), ChangeKind.REVISED, ("cat", "cat")),
        (task(CAT), task(CAT, uri="s3://i/2.png"), ChangeKind.REVISED, ("cat", "cat")),
        (task(SKIP), task(replace(SKIP, lead_time_s=1.0)), ChangeKind.REVISED, (None, None)),
        (None, task(EMPTY), ChangeKind.REVISED, (None, None)),
    ],
)
def test_every_way_a_task_can_change(
    before: Task | None, after: Task | None, what: ChangeKind, classes: tuple[str | None, str | None]
) -> None:
    found = diff({1: before} if before else {}, {1: after} if after else {})
    assert [(c.what, (c.before, c.after)) for c in found.changes] == [(what, classes)]
    assert found.counts[what.value] == sum(found.counts.values()) == 1


def test_equal_snapshots_and_moved_times_are_no_change() -> None:
    before = {1: task(CAT), 2: task(SKIP, number=2)}
    assert diff(before, before).changes == ()
    touched = {**before, 1: replace(before[1], updated_at="9")}
    assert diff(before, touched).changes == ()


def test_a_deleted_answer_whose_id_came_back_is_two_events() -> None:
    reused = replace(CAT, created_at="5", updated_at="5", label="dog")
    found = diff({1: task(CAT)}, {1: task(reused)})
    assert found.annotations == AnnotationCounts(added=1, removed=1)
    assert found.changes[0].what is ChangeKind.RELABELLED


def test_classes_people_and_order() -> None:
    before = {1: task(CAT), 2: task(answer(1, "dog", by=8), number=2), 3: task(answer(1, "owl"), number=3)}
    after = {
        1: task(DOG),
        3: task(answer(1, "owl"), number=3),
        4: task(answer(1, "cat", at="5", by=8), number=4),
        5: task(answer(1, "cat", at="4", by=None, seed=True), number=5),
    }
    found = diff(before, after)
    assert [c.task for c in found.changes] == [4, 5, 1, 2]  # newest first
    assert found.classes == {"cat": (1, 2), "dog": (1, 1), "owl": (1, 1)}
    assert found.people == {7: {"relabelled": 1}, 8: {"added": 1, "removed": 1}}
    assert found.changes[1].seed
    assert found.changes[1].by == ()
    assert found.annotations == AnnotationCounts(added=2, changed=1, removed=1)
