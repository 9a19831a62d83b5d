"""What Label Studio shows of a version: a window, topped up, never pushed twice; the old goes in idle time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

import sync.predictions.publish
from labelloop.clock import LABEL_STUDIO_FORMAT
from labelloop.config.project import ProjectConfig, parse_config
from labelloop.errors import StudioError
from labelloop.labels.results import LabelSchema
from labelloop.objects.storage import MemoryStore
from labelloop.records.tasks import Annotation, QueuePlace, Seen
from labelloop.store.projects import ProjectRecord
from labelloop.store.scores import ScoreStore
from sync.predictions.publish import Publisher
from sync.predictions.push_size import PushSize
from sync.predictions.retired import KEEP_S
from tests.fakes.studio import FakeStudio

SCHEMA = LabelSchema("label", "image", "image", ("cat", "dog"))
CONFIG: ProjectConfig = parse_config({"queue": {"window": 4}}, "the test")
RECORD = ProjectRecord("main", 1, 0, "t", CONFIG, "", "s3://images/t/")


@dataclass
class World:
    """One project with ten open tasks."""

    studio: FakeStudio
    scores: ScoreStore
    publisher: Publisher
    open_tasks: dict[str, list[int]]

    def order(self, version: str, uris: list[str], pool: int = 10) -> None:
        places = [QueuePlace(u, (i + 1) / 20, "cat", 0.6, False, "uncertain") for i, u in enumerate(uris)]
        self.scores.add(version, snapshot=None, pool=pool, policy="random: at random", places=places)

    def restarted(self) -> Publisher:
        return Publisher(self.studio, RECORD, SCHEMA, self.scores)  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    studio, scores = FakeStudio(SCHEMA), ScoreStore(MemoryStore())
    uris = [f"s3://images/t/{i}" for i in range(10)]
    open_tasks = {u: [studio.add_task(u)] for u in uris}
    return World(studio, scores, Publisher(studio, RECORD, SCHEMA, scores), open_tasks)  # type: ignore[arg-type]


def test_nothing_is_published_before_there_is_an_order(world: World) -> None:
    assert not world.publisher.publish("v1", world.open_tasks)
    assert world.publisher.wants_order("v1", 10, world.open_tasks, settled=True, snapshot="s1")
    assert world.studio.pushed == []


def test_a_window_is_pushed_and_then_the_version_switched(world: World) -> None:
    world.order("v1", list(world.open_tasks))
    assert world.publisher.publish("v1", world.open_tasks)
    assert world.studio.pushed == [("v1", 4)]
    assert world.studio.model_version == "v1"
    world.publisher.publish("v1", world.open_tasks)
    assert world.studio.pushed == [("v1", 4)]
    assert world.publisher.order == "random: at random"  # said in the status


def test_answered_tasks_are_left_out(world: World) -> None:
    uris = list(world.open_tasks)
    world.order("v1", uris)
    for uri in uris[:3]:
        del world.open_tasks[uri]
    world.publisher.publish("v1", world.open_tasks)
    assert [t for t, ps in world.studio._predictions.items() if ps] == [world.open_tasks[u][0] for u in uris[3:7]]


def test_the_window_is_topped_up_as_it_runs_low(world: World) -> None:
    uris = list(world.open_tasks)
    world.order("v1", uris)
    world.publisher.publish("v1", world.open_tasks)
    for uri in uris[:3]:
        del world.open_tasks[uri]
    world.publisher.publish("v1", world.open_tasks)
    assert world.studio.pushed == [("v1", 4), ("v1", 3)]
    assert max(len(ps) for ps in world.studio._predictions.values()) == 1


def test_a_new_version_gets_the_front_at_once_and_the_rest_while_nobody_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync.predictions.publish, "FRONT", 2)
    monkeypatch.setattr(PushSize, "took", lambda *_: None)  # nothing is learned of this server
    world.order("v1", list(world.open_tasks))
    world.publisher.publish("v1", world.open_tasks)
    world.publisher.publish("v1", world.open_tasks, idle_s=1.0)
    assert world.studio.pushed == [("v1", 2)]
    for _ in range(2):
        world.publisher.publish("v1", world.open_tasks, idle_s=4.0)
    assert world.studio.pushed == [("v1", 2), ("v1", 2)]
    assert world.studio.model_version == "v1"


def test_a_slow_server_is_left_alone_but_nobody_without_an_order(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    uris = list(world.open_tasks)
    world.order("v1", uris)
    world.publisher.publish("v1", world.open_tasks)
    monkeypatch.setattr(PushSize, "rests", property(lambda _: True))
    world.order("v2", uris)
    world.publisher.publish("v2", world.open_tasks)
    assert world.studio.model_version == "v1"
    for uri in uris[:4]:  # all that had a prediction are answered
        del world.open_tasks[uri]
    world.publisher.publish("v2", world.open_tasks)
    assert world.studio.model_version == "v2"


def test_an_order_that_ran_out_is_made_anew(world: World) -> None:
    uris = list(world.open_tasks)
    world.order("v1", uris[:4])
    world.publisher.publish("v1", world.open_tasks)
    assert not world.publisher.wants_order("v1", 10, world.open_tasks, settled=True, snapshot="s1")
    for uri in uris[:4]:
        del world.open_tasks[uri]
    assert world.publisher.wants_order("v1", 10, world.open_tasks, settled=True, snapshot="s1")


def test_the_same_labels_never_want_a_second_order(world: World) -> None:
    """Else an image that can never be placed would make one every second."""
    uris = list(world.open_tasks)
    world.scores.add("v1", snapshot="s1", pool=10, policy="", places=[])
    world.publisher.publish("v1", world.open_tasks)
    assert not world.publisher.wants_order("v1", 10, {uris[0]: [1]}, settled=True, snapshot="s1")
    assert world.publisher.wants_order("v1", 10, {uris[0]: [1], uris[1]: [2]}, settled=True, snapshot="s2")


def test_a_version_without_anything_to_predict_is_no_error(world: World) -> None:
    world.order("v1", list(world.open_tasks))
    world.publisher.publish("v1", {})
    world.publisher.check_version()
    assert world.studio.model_version is None
    assert world.publisher.published is not None


@pytest.mark.parametrize(("before", "since"), [(2, 0), (0, 3), (2, 3)])
def test_a_restart_knows_which_tasks_have_a_prediction(world: World, before: int, since: int) -> None:
    """However many were answered, and when: none gets a second one, and none at the front is left without."""
    everything = world.open_tasks
    uris = list(everything)
    world.order("v1", uris)
    world.publisher.publish("v1", {u: everything[u] for u in uris[before:]})
    left = {u: everything[u] for u in uris[before + since :]}
    again = world.restarted()
    again.adopt("v1", left)
    again.publish("v1", left)
    stored = world.studio._predictions
    assert max(map(len, stored.values())) == 1
    assert all(stored.get(tasks[0]) for tasks in list(left.values())[: 4 if since else 2])


def test_new_images_want_a_new_order_but_not_each_one_of_a_stream(world: World) -> None:
    world.order("v1", list(world.open_tasks), pool=10)
    assert world.publisher.wants_order("v1", 11, world.open_tasks, settled=True, snapshot="s1")
    assert not world.publisher.wants_order("v1", 11, world.open_tasks, settled=False, snapshot="s1")
    assert world.publisher.wants_order("v1", 16, world.open_tasks, settled=False, snapshot="s1")


def test_after_a_restart_nothing_is_pushed_twice(world: World) -> None:
    world.order("v1", list(world.open_tasks))
    world.publisher.publish("v1", world.open_tasks)
    again = world.restarted()
    again.adopt("v1", world.open_tasks)
    again.publish("v1", world.open_tasks)
    assert world.studio.pushed == [("v1", 4)]


def test_a_page_can_submit_whatever_was_deployed_since_it_was_opened(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Label Studio refuses an answer from a page whose prediction was deleted."""
    world.order("v1", list(world.open_tasks))
    world.publisher.publish("v1", world.open_tasks)
    task = world.open_tasks["s3://images/t/0"][0]
    page = world.studio.opened(task)
    assert page is not None
    for number in range(2, 30):
        world.order(f"v{number}", list(world.open_tasks))
        world.publisher.publish(f"v{number}", world.open_tasks)
        time_passes(monkeypatch, 60 * number)
        assert world.publisher.retire([f"v{n}" for n in range(number)], idle_s=300) == 0
    world.studio.annotate(task, "dog", page=page)


def test_after_a_day_a_replaced_version_goes_and_what_is_not_ours_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("v1", "v2"):
        world.order(version, list(world.open_tasks))
        world.publisher.publish(version, world.open_tasks)
    world.studio.push(1, SCHEMA, "theirs", [(1, QueuePlace("s3://images/t/0", 0.5, "cat", 0.5, False, "rest"))])
    ours = ["cold", "v1", "v2"]
    assert world.publisher.retire(ours, idle_s=600) == 0
    time_passes(monkeypatch, KEEP_S)
    assert world.publisher.retire(ours, idle_s=10) == 0
    assert world.publisher.retire(ours, idle_s=600) == 4
    assert world.publisher.retire(ours, idle_s=600) == 0
    assert world.studio.prediction_counts(1) == {"v2": 4, "theirs": 1}


def time_passes(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    moment = time.monotonic() + seconds
    monkeypatch.setattr(time, "monotonic", lambda: moment)


def test_a_version_that_comes_back_is_shown_with_what_still_stands(world: World) -> None:
    for version in ("v1", "v2", "v1"):
        if version not in world.studio.prediction_counts(1):
            world.order(version, list(world.open_tasks))
        world.publisher.publish(version, world.open_tasks)
    assert world.studio.pushed == [("v1", 4), ("v2", 4)]
    assert world.studio.model_version == "v1"
    again = world.restarted()
    again.adopt("v1", world.open_tasks)
    again.publish("v2", world.open_tasks)
    assert world.studio.pushed == [("v1", 4), ("v2", 4)]
    assert world.studio.model_version == "v2"


@pytest.mark.parametrize("arrived", [False, True])
def test_a_push_that_failed_is_never_in_label_studio_twice(
    world: World, monkeypatch: pytest.MonkeyPatch, arrived: bool
) -> None:
    monkeypatch.setattr(PushSize, "took", lambda *_: None)  # nothing is learned of this server
    world.order("v1", list(world.open_tasks))
    push = world.studio.push

    def fails(project: int, schema: LabelSchema, version: str, places: Sequence[tuple[int, QueuePlace]]) -> int:
        if arrived:
            push(project, schema, version, places)
        raise StudioError("Label Studio did not answer within 60 s")

    monkeypatch.setattr(world.studio, "push", fails)
    with pytest.raises(StudioError):
        world.publisher.publish("v1", world.open_tasks)
    monkeypatch.setattr(world.studio, "push", push)
    world.publisher.publish("v1", world.open_tasks)
    assert world.studio.model_version == "v1"
    assert world.studio.prediction_counts(1) == {"v1": 4}
    assert max(len(ps) for ps in world.studio._predictions.values()) == 1


def test_a_push_that_failed_slowly_is_not_repeated_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    took = iter([0.0, 60.0])  # before and after the push
    monkeypatch.setattr(time, "monotonic", lambda: next(took))
    monkeypatch.setattr(world.studio, "push", lambda *_: (_ for _ in ()).throw(StudioError("no answer within 60 s")))
    world.order("v1", list(world.open_tasks))
    push_size = PushSize(lambda: 60.0)
    world.publisher._push_size = push_size
    with pytest.raises(StudioError):
        world.publisher.publish("v1", world.open_tasks)
    assert push_size.rests
    assert world.publisher.publish("v1", world.open_tasks)  # does not try


def test_a_model_version_that_somebody_changed_is_set_back(world: World) -> None:
    world.order("v1", list(world.open_tasks))
    world.publisher.publish("v1", world.open_tasks)
    world.studio.model_version = None
    world.publisher.check_version()
    assert world.studio.model_version == "v1"


def test_the_hidden_answer_of_a_blind_place_is_known(world: World) -> None:
    places = [QueuePlace("s3://images/t/0", 0.1, "dog", 0.8, True, "quota")]
    world.scores.add("v1", snapshot=None, pool=1, policy="", places=places)
    assert world.publisher.place("v1", "s3://images/t/0") == places[0]
    assert world.publisher.place("v1", "s3://images/t/1") is None
    assert world.publisher.place("v9", "s3://images/t/0") is None
    told = answer(Seen("v1", None, blind=True))
    assert world.publisher.seeing.of("s3://images/t/0", told) == Seen("v1", "dog", blind=True, probability=0.8)
    assert world.publisher.seeing.of("s3://images/t/1", told) == Seen("v1", None, blind=True)


def test_what_a_page_showed_before_the_first_switch_is_not_known(world: World) -> None:
    world.order("v1", list(world.open_tasks))
    began = datetime.now(UTC)
    world.publisher.publish("v1", world.open_tasks)
    late = answer(Seen("v1", "cat", probability=0.6), at=began + timedelta(seconds=9), lead_s=60)
    assert world.publisher.seeing.of("s3://images/t/0", late) is None
    again = world.restarted()
    again.adopt("v1", world.open_tasks)
    assert again.seeing.of("s3://images/t/0", late) == late.seen


def stamp(moment: datetime) -> str:
    return moment.strftime(LABEL_STUDIO_FORMAT)


def answer(seen: Seen, *, at: datetime | None = None, lead_s: float = 0.0) -> Annotation:
    moment = stamp(at or datetime.now(UTC))
    return Annotation(1, moment, moment, "cat", lead_time_s=lead_s, seen=seen)


def test_a_class_that_label_studio_has_lost_is_not_suggested(world: World) -> None:
    world.order("v1", list(world.open_tasks))
    world.publisher.publish("v1", world.open_tasks)
    assert {c.label for ps in world.studio._predictions.values() for _, c in ps} == {"cat"}
    world.publisher.withdraw(LabelSchema("label", "image", "image", ("dog", "owl")))
    assert world.studio.prediction_counts(1) == {}
    world.publisher.publish("v1", world.open_tasks)
    assert world.studio.model_version == "v1"
    assert {c.label for ps in world.studio._predictions.values() for _, c in ps} == {None}


def test_an_older_order_is_pushed_under_the_names_of_now(world: World) -> None:
    config = parse_config({"queue": {"window": 4}, "label_map": {"cat": "feline"}}, "the test")
    record = ProjectRecord("main", 1, 0, "t", config, "", "s3://images/t/")
    schema = LabelSchema("label", "image", "image", ("feline", "dog"))
    publisher = Publisher(world.studio, record, schema, world.scores)  # type: ignore[arg-type]
    world.order("v1", list(world.open_tasks))
    publisher.publish("v1", world.open_tasks)
    assert {c.label for ps in world.studio._predictions.values() for _, c in ps} == {"feline"}


def test_order_after_order_does_not_pile_up_predictions() -> None:
    studio, scores = FakeStudio(SCHEMA), ScoreStore(MemoryStore())
    publisher = Publisher(studio, RECORD, SCHEMA, scores)  # type: ignore[arg-type]
    open_tasks = {f"s3://images/t/{i}": [studio.add_task(f"s3://images/t/{i}")] for i in range(100)}
    uris = list(open_tasks)
    for first in range(0, 40, 4):  # each time other images come first
        places = [QueuePlace(u, 0.5, None, None, False, "cold-start") for u in uris[first : first + 20]]
        scores.add("v1", snapshot=None, pool=first, policy="", places=places)
        publisher.publish("v1", open_tasks)
    assert studio.prediction_counts(1) == {"v1": 12}
    for uri in uris[:5]:
        del open_tasks[uri]
    publisher.publish("v1", open_tasks)
    assert studio.prediction_counts(1) == {"v1": 16}
    assert studio._predictions.keys() >= {open_tasks[uri][0] for uri in uris[36:40]}  # the newest order's
