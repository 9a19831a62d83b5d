"""A seed gives one schedule, the seeds cover every fault, and a short run heals; the long one is `make faults`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.run import main
from tests.faults.schedule import ACTIONS, SINGLE, make_schedule


def test_a_seed_gives_one_schedule() -> None:
    assert make_schedule(7, 200) == make_schedule(7, 200)
    assert make_schedule(7, 200) != make_schedule(8, 200)


def test_the_first_seeds_break_every_single_thing_once() -> None:
    faults = [make_schedule(seed, 200).faults for seed in range(len(SINGLE))]
    assert {(f.kind, f.where) for (f,) in faults} == {(kind, where) for kind, where, _ in SINGLE}


def test_people_do_everything_they_may() -> None:
    assert set(make_schedule(100, 2000).actions) == set(ACTIONS)


@pytest.mark.long(seconds=180)
def test_everything_heals_by_itself(tmp_path: Path) -> None:
    """Six faults in one schedule, on the real stack; `make faults` is the long run."""
    out = tmp_path / "outcomes.jsonl"
    code = main(["--only", "100", "--actions", "50", "--home", str(tmp_path / "stack"), "--out", str(out)])
    broken = [seed["broken"] for seed in map(json.loads, out.read_text().splitlines())]
    assert (broken, code) == ([[]], 0)
