"""What the author of an answer had before them: pages that were opened before a switch show the version before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from labelloop.clock import LABEL_STUDIO_FORMAT
from labelloop.records.tasks import Annotation, QueuePlace, Seen
from sync.predictions.shown import DOUBT, KEPT, Seeing

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
URI, OTHER = "s3://images/1", "s3://images/2"
PLACES = {
    ("v1", URI): QueuePlace(URI, 0.1, "cat", 0.6, False, "uncertain"),
    ("v2", URI): QueuePlace(URI, 0.1, "dog", 0.7, False, "uncertain"),
    ("v3", URI): QueuePlace(URI, 0.1, "dog", 0.8, False, "uncertain"),
    ("v4", URI): QueuePlace(URI, 0.1, "fox", 0.9, True, "uncertain"),
    ("v4", OTHER): QueuePlace(OTHER, 0.2, "fox", 0.9, True, "quota"),
    ("v5", URI): QueuePlace(URI, 0.1, None, None, False, "uncertain"),
}


HIDDEN = Seen("v4", "fox", blind=True, probability=0.9, chosen=True)


def after(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def answer(told: Seen | None, *, opened: float, sent: float) -> Annotation:
    moment = after(sent).strftime(LABEL_STUDIO_FORMAT)
    return Annotation(1, moment, moment, "cat", lead_time_s=60 * (sent - opened), seen=told)


@pytest.fixture
def seeing() -> Seeing:
    """A switch each minute: v1 at noon, v2 a minute later, and so on."""
    found = Seeing(lambda version, uri: PLACES.get((version, uri)))
    for i in range(5):
        found.switched(f"v{i + 1}", after(i), after(i + 0.005))
    return found


def test_label_studio_is_right_where_nothing_was_switched_meanwhile(seeing: Seeing) -> None:
    told = Seen("v2", "dog", probability=0.7)
    assert seeing.of(URI, answer(told, opened=1.2, sent=1.8)) == told
    assert seeing.of(URI, answer(None, opened=1.2, sent=1.8)) is None


@pytest.mark.parametrize("told", [Seen("v2", "dog", probability=0.7), None])
def test_the_version_at_the_opening_counts(seeing: Seeing, told: Seen | None) -> None:
    assert seeing.of(URI, answer(told, opened=0.5, sent=1.5)) == Seen("v1", "cat", probability=0.6)
    assert seeing.of(URI, answer(told, opened=0.5, sent=4.5)) == Seen("v1", "cat", probability=0.6)
    assert seeing.of(URI, answer(told, opened=3.5, sent=4.5)) == HIDDEN


def test_an_image_that_the_version_before_had_not_ordered_is_not_known(seeing: Seeing) -> None:
    assert seeing.of(OTHER, answer(Seen("v2", "dog"), opened=0.5, sent=1.5)) is None


def test_what_was_opened_before_the_first_switch_is_not_known(seeing: Seeing) -> None:
    assert seeing.of(URI, answer(Seen("v1", "cat"), opened=-0.5, sent=0.5)) is None


def test_an_answer_of_long_ago_that_is_read_only_now_is_taken_as_told(seeing: Seeing) -> None:
    told = Seen("v0", "cat")
    assert seeing.of(URI, answer(told, opened=-9, sent=-8)) == told


def test_in_the_moment_of_a_switch_only_agreement_counts(seeing: Seeing) -> None:
    within = DOUBT.total_seconds() / 120
    one, other = Seen("v2", "dog", probability=0.7), Seen("v3", "dog", probability=0.8)
    assert seeing.of(URI, answer(other, opened=2 - within, sent=2.5)) == one  # v2 and v3 say the same
    assert seeing.of(URI, answer(one, opened=1 - within, sent=1.5)) is None  # v1 said something else


def test_what_was_hidden_is_told_with_its_probability_and_only_where_it_was_hidden_by_design(seeing: Seeing) -> None:
    nothing = answer(Seen("v4", None, blind=True), opened=3.2, sent=3.8)
    assert seeing.of(URI, nothing) == HIDDEN
    drawn = answer(Seen("v4", None, blind=True), opened=3.2, sent=3.8)
    assert seeing.of(OTHER, drawn) == Seen("v4", "fox", blind=True, probability=0.9)
    unreadable = answer(Seen("v1", None, blind=True), opened=0.2, sent=0.8)
    assert seeing.of(URI, unreadable) == Seen("v1", None, blind=True)


def test_before_the_first_model_nothing_is_looked_up() -> None:
    seeing = Seeing(lambda *_: pytest.fail("an order was read"))
    told = Seen("cold-start", None, blind=True)
    assert seeing.of(URI, answer(told, opened=0, sent=1)) == told


def test_an_order_without_labels_showed_nothing(seeing: Seeing) -> None:
    seeing.switched("v1", after(5), after(5.005))
    late = answer(Seen("v1", "cat"), opened=4.5, sent=5.5)
    assert seeing.of(URI, late) == Seen("v5", None, blind=True)


def test_an_answer_without_a_time_counts_as_opened_when_it_was_sent(seeing: Seeing) -> None:
    moment = after(1.5).strftime(LABEL_STUDIO_FORMAT)
    told = Seen("v2", "dog", probability=0.7)
    assert seeing.of(URI, Annotation(1, moment, moment, "cat", seen=told)) == told


def test_the_oldest_switches_are_forgotten() -> None:
    seeing = Seeing(lambda version, uri: PLACES.get((version, uri)))
    for i in range(KEPT + 10):
        seeing.switched(f"v{i}", after(i), after(i))
    assert seeing.of(URI, answer(Seen("v9", "cat"), opened=5.5, sent=KEPT + 9.5)) is None
