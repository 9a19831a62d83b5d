"""What is new among objects named by time: nothing is lost, whatever the clocks say, and little is listed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from labelloop.objects.shards import SKEW, WHOLE_EVERY_S, Shards
from labelloop.objects.storage import MemoryStore, ObjectInfo

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
OUR_TIME = START + timedelta(days=1)  # by the reader's own calendar


class Counting(MemoryStore):
    """Counts what is listed."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = 0

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        for info in super().list(prefix, start_after=start_after):
            self.listed += 1
            yield info


class World:
    def __init__(self) -> None:
        self.store, self.now = Counting(), 0.0
        self.shards = Shards(self.store, "x/", clock=lambda: self.now, today=self.today)

    def today(self) -> datetime:
        return OUR_TIME + timedelta(seconds=self.now)

    def write(self, clock_s: float, tail: str = "aaaaaa") -> str:
        key = f"x/{START + timedelta(seconds=clock_s):%Y%m%dT%H%M%S%f}-{tail}.json"
        self.store.put(key, b"{}")
        return key

    def new(self) -> list[str]:
        return [key for key, _ in self.shards.arrivals()]


@pytest.fixture
def world() -> World:
    return World()


def test_each_object_comes_once(world: World) -> None:
    keys = [world.write(i) for i in range(10)]
    assert world.new() == keys
    assert world.new() == []
    late = world.write(20)
    assert world.new() == [late]


def test_names_from_a_slow_clock_are_found_at_once(world: World) -> None:
    world.write(1000)
    world.new()
    world.now += 3
    late = world.write(1003 - SKEW.total_seconds() + 5)
    assert world.new() == [late]


def test_names_from_a_clock_beyond_all_bounds_are_found_by_the_whole_listing(world: World) -> None:
    world.write(100_000)
    world.new()
    world.now += 3
    late = world.write(0)
    assert world.new() == []
    world.now += WHOLE_EVERY_S
    assert world.new() == [late]


def test_a_clock_that_is_days_ahead_hides_nobody(world: World) -> None:
    world.write(7 * 86_400)
    world.new()
    world.now += 3
    right = world.write(86_400)
    assert world.new() == [right]


def test_in_quiet_times_nothing_old_is_listed(world: World) -> None:
    for i in range(500):
        world.write(i * 0.1, f"{i:06d}")
    world.new()
    world.now += SKEW.total_seconds() - WHOLE_EVERY_S + WHOLE_EVERY_S / 2
    world.new()
    world.now += WHOLE_EVERY_S / 2 + 60
    world.new()  # a whole one
    world.now += 60
    world.store.listed = 0
    assert world.new() == []
    assert world.store.listed == 0


def test_other_names_are_listed_as_a_whole(world: World) -> None:
    world.store.put("x/2", b"")
    assert world.new() == ["x/2"]
    world.store.put("x/1", b"")
    assert world.new() == ["x/1"]


def test_an_object_that_vanishes_between_listing_and_reading_is_passed_over(world: World) -> None:
    first, second = world.write(1), world.write(2)
    arrivals = world.shards.arrivals()
    assert next(arrivals)[0] == first
    world.store.delete(second)
    assert list(arrivals) == []
    world.now += 1
    far_back = world.write(-10_000)
    assert world.new() == [far_back]


def test_what_vanished_is_told_by_the_whole_listing(world: World) -> None:
    keys = [world.write(i) for i in range(3)]
    world.new()
    world.store.delete(keys[1])
    world.now += WHOLE_EVERY_S + 1
    assert world.new() == []
    assert world.shards.vanished == {keys[1]}


@pytest.mark.parametrize("seed", range(10))
def test_writers_with_clocks_apart_lose_nothing(world: World, seed: int) -> None:
    chance = random.Random(seed)
    skews = [chance.uniform(-140, 140) for _ in range(4)]
    written, read = set(), []
    for step in range(300):
        world.now += chance.uniform(0, 5)
        if chance.random() < 0.5:
            written.add(world.write(50_000 + world.now + chance.choice(skews), f"{step:06d}"))
        read += world.new()
        assert set(read) == written
    assert len(read) == len(written)
