"""A short run of the fault harness in CI; the long one is `make faults`."""

from __future__ import annotations

from pathlib import Path

from tests.faults.run import main
from tests.faults.schedule import ACTIONS, SINGLE, make_schedule

CI_SEEDS = (0,)  # a killed watcher; the long run has them all
CI_ACTIONS = 40


def test_a_seed_gives_one_schedule() -> None:
    assert make_schedule(7, 200) == make_schedule(7, 200)
    assert make_schedule(7, 200) != make_schedule(8, 200)


def test_the_first_seeds_break_every_single_thing_once() -> None:
    faults = [make_schedule(seed, 200).faults for seed in range(len(SINGLE))]
    assert {(f.kind, f.where) for (f,) in faults} == {(kind, where) for kind, where, _ in SINGLE}


def test_people_do_everything_they_may() -> None:
    assert set(make_schedule(100, 2000).actions) == set(ACTIONS)


def test_all_invariants_hold(tmp_path: Path) -> None:
    words = ["--actions", str(CI_ACTIONS), "--home", str(tmp_path / "stack"), "--only", *map(str, CI_SEEDS)]
    assert main(words) == 0, "an invariant broke: the seeds are named above"
