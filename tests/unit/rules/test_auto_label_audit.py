"""Which answers of people are a random sample of the images, whatever else they did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from labelloop.records.images import ImageFacts, Split
from labelloop.records.tasks import Annotation, Seen, Task
from labelloop.rules.acquisition import lot
from labelloop.rules.auto_label.audit import AnswerState, AuditGroup, Ground, ground_of, groups_of

AT = "2026-01-01T00:00:00Z"
SEED = 7


def facts(count: int, bucket: Split = Split.AUDIT, prefix: str = "a") -> list[ImageFacts]:
    return [ImageFacts(f"{prefix}{i}", "e", f"{prefix}{i}", f"group-{prefix}{i}", bucket) for i in range(count)]


def task(uri: str, label: str | None = "cat", *, seen: Seen | None = None, cancelled: bool = False) -> Task:
    number = abs(hash(uri)) % 10**6
    return Task(number, uri, AT, (Annotation(number, AT, AT, label, cancelled=cancelled, seen=seen),))


def ground(images: Sequence[ImageFacts], tasks: Iterable[Task]) -> Ground:
    return ground_of(groups_of(images, tasks, {f.uri for f in images}), SEED)


def in_order(images: Iterable[ImageFacts]) -> list[str]:
    """Uris as the random quota draws them."""
    return [f.uri for f in sorted(images, key=lambda f: lot(SEED, f.group))]


def test_the_sample_is_what_was_worked_off_of_the_random_order() -> None:
    images = facts(300)
    drawn = in_order(images)
    found = ground([*images, *facts(900, Split.TRAIN, "t")], [task(uri) for uri in drawn[:120]])
    assert [g.uri for g in found.sample] == drawn[:120]
    assert (found.images, len(found.rest), found.gaps, found.later) == (1200, 1080, 0, 0)
    assert found.open_audit == 180


def test_answers_that_people_chose_themselves_wait_for_those_before_them() -> None:
    """As after an import, or after other images have joined: half are labelled, here and there."""
    images = facts(300)
    drawn = in_order(images)
    found = ground(images, [task(uri) for uri in drawn[:40] + drawn[100:200:2]])
    assert [g.uri for g in found.sample] == drawn[:40]
    assert found.later == 50
    found = ground(images, [task(uri) for uri in drawn[:100] + drawn[100:200:2]])
    assert len(found.sample) > 100
    assert found.gaps <= 0.02 * len(found.sample)


def test_an_image_that_lies_in_front_of_somebody_counts_as_wrong_and_not_as_an_end() -> None:
    images = facts(300)
    drawn = in_order(images)
    found = ground(images, [task(uri) for uri in drawn[:200] if uri != drawn[150]])
    assert (len(found.sample), found.gaps) == (200, 1)
    assert found.sample[150].label is None
    assert found.sample[150] in found.rest


@pytest.mark.parametrize(
    ("answers", "label"),
    [
        ([task("a0", None, cancelled=True)], None),
        ([task("a0", None)], None),
        ([task("a0", "cat"), task("a0", "dog")], None),
        ([task("a0", "cat"), task("a0", "cat")], "cat"),
        ([task("a0", "cat"), task("a0", None, cancelled=True)], "cat"),
    ],
    ids=["skipped", "empty", "contradicted", "agreed", "one-skipped"],
)
def test_what_nobody_could_be_right_about_is_in_the_sample_without_a_label(
    answers: Sequence[Task], label: str | None
) -> None:
    (group,) = ground(facts(1), answers).sample
    assert (group.state, group.label) == (AnswerState.ANSWERED, label)


def test_an_answer_with_a_prediction_in_sight_does_not_count() -> None:
    images = facts(100)
    drawn = in_order(images)
    shown, hidden = Seen("v1", "cat"), Seen("v1", "cat", blind=True)
    tasks = [task(uri, seen=hidden) for uri in drawn[:60]] + [task(drawn[60], seen=shown)]
    found = ground(images, tasks)
    assert (len(found.sample), found.seen, len(found.rest)) == (60, 1, 39)
    chosen = facts(2, Split.TRAIN, "t")
    assert ground(chosen, [task("t0", seen=shown)]).seen == 0  # the model chose it: nothing else is expected


def test_images_that_show_the_same_count_once() -> None:
    images = [replace(f, group="same") for f in facts(3, Split.TRAIN, "t")]
    found = ground([*images, *facts(2)], [])
    (same,) = [g for g in found.rest if g.id == "same"]
    assert same.uris == ("t0", "t1", "t2")
    assert found.images == 3
    answered = ground([*images, *facts(2)], [task("t2")])
    assert [g.id for g in answered.rest] == ["group-a0", "group-a1"]


def test_what_cannot_be_labelled_is_no_part_of_it() -> None:
    good, broken, between, gone = facts(4, Split.TRAIN, "t")
    images = [good, replace(broken, problem="it cannot be decoded"), replace(between, bucket=Split.QUARANTINE), gone]
    found = ground_of(groups_of(images, [task("t1"), task("t2")], {"t0", "t1", "t2"}), SEED)
    assert ([g.uri for g in found.rest], found.images) == (["t0"], 1)


def test_test_images_that_were_drawn_at_random_leave_the_count_and_chosen_ones_stay_in_it() -> None:
    """A random draw leaves the rest as it is; people who chose may have taken the right answers away."""
    audit, test, train = facts(100), facts(100, Split.TEST, "x"), facts(400, Split.TRAIN, "t")
    tasks = [task(uri) for uri in in_order(audit)[:50] + in_order(test)[:80] + [f.uri for f in train[:150]]]
    found = ground([*audit, *test, *train], tasks)
    assert found.images == 600 - 80
    assert len(found.rest) == 600 - 50 - 80 - 150


def test_nothing_is_nothing() -> None:
    assert ground([], []) == Ground((), (), 0, 0, 0, 0, 0)
    assert AuditGroup("g", ("b", "c"), Split.TRAIN).uri == "b"
