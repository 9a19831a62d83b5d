"""A seed gives one schedule, and the seeds cover every fault; the runs themselves are `make faults`."""

from __future__ import annotations

from tests.faults.schedule import ACTIONS, SINGLE, make_schedule


def test_a_seed_gives_one_schedule() -> None:
    assert make_schedule(7, 200) == make_schedule(7, 200)
    assert make_schedule(7, 200) != make_schedule(8, 200)


def test_the_first_seeds_break_every_single_thing_once() -> None:
    faults = [make_schedule(seed, 200).faults for seed in range(len(SINGLE))]
    assert {(f.kind, f.where) for (f,) in faults} == {(kind, where) for kind, where, _ in SINGLE}


def test_people_do_everything_they_may() -> None:
    assert set(make_schedule(100, 2000).actions) == set(ACTIONS)
