"""One small room of `make mutants`: rules are changed, and their tests notice. The others run on demand."""

from __future__ import annotations

from pathlib import Path

from tests.mutants.rooms import ROOMS
from tests.mutants.run import ROOT, run_room


def test_the_tests_of_a_split_notice_what_changes_there(tmp_path: Path) -> None:
    whole = run_room("split", tmp_path / "whole", children=2)
    assert whole.mutants >= 15
    assert whole.score >= ROOMS["split"].floor


def test_every_room_names_modules_and_tests_that_are_there() -> None:
    for room in ROOMS.values():
        assert all((ROOT / f"{module.replace('.', '/')}.py").is_file() for module in room.modules)
        assert all((ROOT / test).is_file() for test in room.tests)
        assert 0.5 <= room.floor <= 1
