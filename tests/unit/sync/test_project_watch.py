"""One project's turns: what they cost does not follow the project's size, and what is gone is found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

import sync.answers.recorder
from bench.watcher import World, measure
from labelloop.errors import StudioError
from labelloop.studio.rows import TaskStub
from sync.predictions.publish import FRONT


@pytest.fixture(autouse=True)
def quiet_log() -> None:
    structlog.configure(cache_logger_on_first_use=False)


@pytest.fixture
def world() -> World:
    world = World(1200)
    world.watch.turn(nudged=True)
    world.watch.turn(nudged=True)
    return world


def test_a_look_asks_for_no_more_in_a_larger_project() -> None:
    small, large = measure(500, 3), measure(9000, 3)
    for kind in ("quiet", "changes"):
        assert large[kind].requests == small[kind].requests
        assert large[kind].bytes < 1.5 * small[kind].bytes
    assert large["listing"].bytes > 10 * small["listing"].bytes


def test_a_deleted_task_is_found_by_the_next_count(world: World) -> None:
    watch, task = world.watch, world.ids[7]
    assert watch.feed.tasks[task].label
    world.studio.delete_task(task)
    watch.answers._count_at = 0.0
    assert watch.turn(nudged=False)
    assert task not in watch.feed.tasks
    assert watch.snapshot is not None
    assert task not in watch.snapshot.tasks
    assert world.uris[7] in watch.answers._deleted()


def test_deletes_are_noticed_while_people_label_without_pause(world: World) -> None:
    world.studio.delete_task(world.ids[7])
    world.watch.answers._count_at = 0.0
    world.label(3)
    world.watch.turn(nudged=True)
    assert world.ids[7] not in world.watch.feed.tasks


def test_everything_is_read_a_page_at_a_time_between_two_turns(world: World) -> None:
    watch = world.watch
    world.studio.delete_task(world.ids[7])
    watch.answers._sweep_at, watch.answers._count_at = 0.0, float("inf")
    watch.turn(nudged=False)
    assert watch.feed.sweeping
    assert world.ids[7] in watch.feed.tasks
    world.label(2)
    assert watch.turn(nudged=False)  # labels come in as ever
    for _ in range(3):
        watch.turn(nudged=False)
    assert not watch.feed.sweeping
    assert world.ids[7] not in watch.feed.tasks
    assert watch.answers._sweep_at > 0


def test_a_sweep_goes_on_although_people_label_without_pause(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync.answers.recorder, "PAGE_EVERY_S", 0)
    world.watch.answers._sweep_at = 0.0
    for _ in range(4):
        world.label(1)
        world.watch.turn(nudged=True)
    assert world.watch.answers._sweep_at > 0
    assert not world.watch.feed.sweeping


def test_tasks_that_the_feed_does_not_show_are_looked_for_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = world.watch
    monkeypatch.setattr(world.studio, "task_count", lambda *_: len(watch.feed.task_index) + 5)
    sweeps = []
    monkeypatch.setattr(watch.feed, "sweep", lambda: (sweeps.append(1), (sync.answers.recorder.Changes(), True))[1])
    watch.answers._sweep_at = float("inf")
    for _ in range(4):
        watch.answers._count_at = 0.0
        watch.turn(nudged=False)
    assert sweeps == [1]


def test_the_order_is_pushed_once_and_again_after_a_restart_not_at_all(world: World) -> None:
    window = world.watch.project.config.queue.window
    pushed = [("cold-start", FRONT), ("cold-start", window - FRONT)]  # the rest at once: this server is quick
    assert world.studio.pushed == pushed
    world.restart()
    world.watch.turn(nudged=True)
    world.watch.turn(nudged=True)
    assert world.studio.pushed == pushed
    assert len(world.watch.feed.task_index) == 1200


def test_a_reading_that_an_error_interrupted_goes_on_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = world.watch
    changes = world.studio.changes
    monkeypatch.setattr(world.studio, "changes", lambda *_: _raising())
    with pytest.raises(StudioError):
        watch.drain()
    monkeypatch.setattr(world.studio, "changes", changes)
    world.studio.delete_task(world.ids[7])
    for _ in range(4):
        watch.turn(nudged=False)
    assert not watch.feed.sweeping
    assert world.ids[7] not in watch.feed.tasks


def _raising() -> Iterator[list[TaskStub]]:
    raise StudioError("away")
    yield []
