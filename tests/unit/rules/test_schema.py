"""What a class counts as: in labels, in heads and in places of an older order."""

from __future__ import annotations

import numpy as np
import pytest

from labelloop.config.project import parse_config
from labelloop.errors import SettingsError
from labelloop.model.head import Head
from labelloop.objects.storage import MemoryStore
from labelloop.records.snapshots import Snapshot
from labelloop.records.tasks import Annotation, QueuePlace, Seen, Task
from labelloop.rules.schema import AS_GIVEN, LabelRules
from labelloop.store.snapshots import SnapshotStore
from retrain_worker.evidence.collect import Side


def answer(label: str | None, at: int = 1, *, seen: str | None = None, cancelled: bool = False) -> Annotation:
    moment = f"2026-01-01T00:00:{at:02d}.000000Z"
    return Annotation(at, moment, moment, label, cancelled, seen=Seen("v1", seen) if seen else None)


def test_without_a_map_every_class_is_itself_and_nothing_is_copied() -> None:
    snapshot = Snapshot("s", {1: Task(1, "u", "", (answer("cat"),))})
    assert AS_GIVEN.resolve("cat") == "cat"
    assert AS_GIVEN.read(snapshot) is snapshot


@pytest.mark.parametrize(
    ("label_map", "given", "label"),
    [
        ({"cat": "feline"}, "cat", "feline"),
        ({"cat": "feline"}, "dog", "dog"),
        ({"cat": None}, "cat", None),
        ({"cat": "feline", "feline": "felis"}, "cat", "felis"),  # renamed twice
        ({"cat": "feline", "feline": None}, "cat", None),
        ({"cat": "felis", "lynx": "felis"}, "lynx", "felis"),
    ],
)
def test_a_class_counts_as_what_was_decided(label_map: dict[str, str | None], given: str, label: str | None) -> None:
    rules = LabelRules(label_map)
    assert rules.resolve(given) == label
    assert label is None or rules.resolve(label) == label  # reading twice changes nothing


def test_a_map_in_a_circle_is_refused_and_would_still_end() -> None:
    with pytest.raises(SettingsError, match="goes in a circle"):
        parse_config({"label_map": {"a": "b", "b": "c", "c": "a"}}, "the test")
    with pytest.raises(SettingsError, match="goes in a circle"):
        parse_config({"label_map": {"a": "a"}}, "the test")
    assert parse_config({"label_map": {"a": "b", "b": "c", "d": None}}, "the test").label_map["d"] is None
    assert LabelRules({"a": "b", "b": "a"}).resolve("a") in {"a", "b"}


def test_a_decision_changes_the_name_of_the_config() -> None:
    configs = [parse_config({"label_map": m}, "the test") for m in ({}, {"a": "b"}, {"a": None}, {"a": "c"})]
    assert len({c.hash for c in configs}) == 4


def test_the_snapshot_keeps_what_was_given_and_reads_as_it_counts() -> None:
    store = SnapshotStore(MemoryStore())
    frozen = store.freeze([Task(1, "u1", "", (answer("cat", seen="cat"),)), Task(2, "u2", "", (answer("dog"),))])
    kept = SnapshotStore(store._store).load(frozen.id)
    assert kept.labels() == {"u1": "cat", "u2": "dog"}
    read = LabelRules({"cat": "feline"}).read(kept)
    assert read.id == kept.id
    assert read.labels() == {"u1": "feline", "u2": "dog"}
    assert read.tasks[1].annotations[0].seen == Seen("v1", "feline")
    assert read.tasks[2] is kept.tasks[2]
    assert kept.labels()["u1"] == "cat"


def test_an_answer_of_a_dropped_class_steps_back_behind_the_one_before() -> None:
    task = Task(1, "u", "", (answer("dog", 1), answer("cat", 2)))
    assert task.label == "cat"
    read = LabelRules({"cat": None}).task(task)
    assert read.label == "dog"
    assert [a.label for a in read.annotations] == ["dog", None]
    assert read.annotations[1].problem == "class 'cat' is dropped by label_map"
    assert LabelRules({"cat": None, "dog": None}).task(task).label is None


def test_a_skip_stays_a_skip() -> None:
    task = Task(1, "u", "", (answer(None, cancelled=True),))
    assert LabelRules({"cat": None}).task(task).skipped


def head(*labels: str) -> Head:
    return Head(labels, np.eye(len(labels), dtype=np.float32), np.zeros(len(labels), dtype=np.float32))


PROBABILITIES = np.array([[0.4, 0.35, 0.25], [0.1, 0.2, 0.7]], dtype=np.float32)


def test_a_renamed_head_says_the_same_under_new_names() -> None:
    names = LabelRules({"cat": "feline"}).names(("cat", "dog", "fox"))
    assert names.labels == ("feline", "dog", "fox")
    assert names.of(PROBABILITIES) is PROBABILITIES


def test_merged_classes_are_summed() -> None:
    names = LabelRules({"fox": "dog"}).names(("cat", "dog", "fox"))
    assert names.labels == ("cat", "dog")
    np.testing.assert_allclose(names.of(PROBABILITIES), [[0.4, 0.6], [0.1, 0.9]], rtol=1e-6)


def test_a_dropped_class_leaves_its_share_to_the_others() -> None:
    names = LabelRules({"cat": None}).names(("cat", "dog", "fox"))
    assert names.labels == ("dog", "fox")
    np.testing.assert_allclose(names.of(PROBABILITIES).sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(names.of(PROBABILITIES)[0], [0.35 / 0.6, 0.25 / 0.6], rtol=1e-6)
    sure = names.of(np.array([[1, 0, 0]], dtype=np.float32))
    np.testing.assert_allclose(sure, [[0.5, 0.5]])


def test_all_classes_dropped_leave_nothing() -> None:
    names = LabelRules({"cat": None, "dog": None, "fox": None}).names(("cat", "dog", "fox"))
    assert names.labels == ()
    assert names.of(PROBABILITIES).shape == (2, 0)


def test_a_champion_answers_under_the_names_of_now() -> None:
    rows = {"u": np.array([0.4, 0.35, 0.3], dtype=np.float32)}
    side = Side(head("cat", "dog", "fox"), lambda uris: np.stack([rows[u] for u in uris]))
    assert list(side.answers(["u"])) == ["cat"]
    merged = Side(side.head, side.rows, LabelRules({"fox": "dog"}))
    assert list(merged.answers(["u"])) == ["dog"]  # 0.35 and 0.3 together are more
    none = Side(side.head, side.rows, LabelRules({"cat": None, "dog": None, "fox": None}))
    assert list(none.answers(["u"])) == [""]


def test_a_place_of_an_older_order_is_shown_under_the_name_of_now() -> None:
    place = QueuePlace("u", 0.1, "cat", 0.8, blind=False, why="uncertain")
    assert AS_GIVEN.shown(place, {"cat"}) is place
    assert LabelRules({"cat": "feline"}).shown(place, {"feline"}).label == "feline"
    gone = AS_GIVEN.shown(place, {"feline"})
    assert (gone.label, gone.probability, gone.priority) == (None, None, 0.1)
    assert LabelRules({"cat": None}).shown(place, {"cat"}).label is None
