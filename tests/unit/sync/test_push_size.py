import pytest

from sync.predictions.push_size import MOST_REST_S, PushSize
from tests.fakes.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_before_anything_is_known_the_first_size_counts(clock: Clock) -> None:
    push_size = PushSize(clock)
    assert push_size.size(50, 200) == 50
    assert push_size.size(50, 20) == 20
    assert not push_size.rests


def test_a_quick_server_gets_the_whole_window_and_a_slow_one_the_front(clock: Clock) -> None:
    quick, slow = PushSize(clock), PushSize(clock)
    quick.took(50, 0.02)
    slow.took(50, 5.0)
    assert quick.size(50, 200) == 200
    assert slow.size(50, 200) == 50
    assert slow.size(50, 4) == 4


def test_the_size_follows_a_server_that_slows_down_and_recovers(clock: Clock) -> None:
    push_size = PushSize(clock)
    sizes = []
    for seconds in (0.05, 0.05, 0.5, 0.5, 0.5, 0.05, 0.05, 0.05):
        push_size.took(50, seconds)
        sizes.append(push_size.size(10, 1000))
    assert sizes[1] > sizes[3] >= sizes[4]
    assert sizes[4] < sizes[5] < sizes[7]


def test_most_of_the_time_belongs_to_people(clock: Clock) -> None:
    push_size = PushSize(clock)
    push_size.took(10, 1.0)
    assert push_size.rests
    clock.now = 3.9
    assert push_size.rests
    clock.now = 4.1
    assert not push_size.rests


def test_one_very_slow_push_does_not_silence_us_for_hours(clock: Clock) -> None:
    push_size = PushSize(clock)
    push_size.took(10, 3600.0)
    clock.now = MOST_REST_S + 0.1
    assert not push_size.rests
