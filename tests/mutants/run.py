"""`python -m tests.mutants.run`: the rooms' mutants through their tests; a line each, then what survived."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.rooms import ROOMS, Room

ROOT = Path(__file__).parents[2]
PACKAGES = ("labelloop", "ml_backend", "sync", "retrain_worker", "operations", "embedded", "cli")
BESIDE = ("tests", "bench", "configs", "docs", "Makefile", "README.md", "pyproject.toml")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a room's mutants."""

    room: str
    mutants: int
    survivors: tuple[str, ...]  # the changed lines of each
    took_s: float

    @property
    def score(self) -> float:
        """Share that was killed."""
        return 1 - len(self.survivors) / self.mutants


def run_room(name: str, place: Path, *, children: int, share: float = 1.0) -> Outcome:
    """Try a share of one room's mutants in ``place``, which is emptied; SystemExit where its tests fail without any."""
    began = time.monotonic()
    _lay_out(ROOMS[name], place)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)  # the mutants, not the originals
    command = [sys.executable, str(Path(__file__).with_name("mutate.py")), str(children), str(share)]
    with (place / "log").open("wb") as log:
        subprocess.run(command, cwd=place, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    try:
        results = json.loads((place / "results.json").read_text())
    except FileNotFoundError:
        raise SystemExit(f"error: {name}: mutmut gave no results; its last lines:\n{_tail(place / 'log')}") from None
    alive = [r for r in results if r["status"] not in ("killed", "timeout")]
    return Outcome(name, len(results), tuple(map(_in_words, alive)), time.monotonic() - began)


def _lay_out(room: Room, place: Path) -> None:
    """A checkout of links, with mutmut's settings: it writes copies of what is mutated below ``mutants/``."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name in (*PACKAGES, *BESIDE):
        (place / name).symlink_to(ROOT / name)
    lists = {
        "source_paths": PACKAGES,
        "only_mutate": [f"{module.replace('.', '/')}.py" for module in room.modules],
        "also_copy": BESIDE,
        "pytest_add_cli_args_test_selection": room.tests,
        "pytest_add_cli_args": ("-p", "no:cacheprovider"),
    }
    lines = [f"{key} =\n" + "".join(f"  {value}\n" for value in values) for key, values in lists.items()]
    (place / "setup.cfg").write_text("[mutmut]\nuse_git_change_detection = false\n" + "".join(lines))


def _in_words(result: dict[str, str]) -> str:
    lines = [line for line in result["diff"].splitlines()[2:] if line[:1] in "+-"]
    changed = "\n".join(f"      {line[0]} {line[1:].strip()}" for line in lines)
    return f"    {result['name']} ({result['status']})\n{changed}"


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").replace("\r", "\n").splitlines()[-30:])


def main(arguments: Sequence[str] | None = None) -> int:
    """1 where a room is below its floor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rooms", nargs="*", choices=list(ROOMS), default=list(ROOMS))
    parser.add_argument("--children", type=int, default=os.cpu_count(), help="mutants tried at once")
    parser.add_argument("--share", type=float, default=1.0, help="of the mutants, always the same: 0.2 is every fifth")
    options = parser.parse_args(arguments)
    outcomes = []
    print(f"{'room':<12}{'mutants':>8}{'killed':>8}{'survived':>10}{'score':>8}{'floor':>8}{'time':>8}")
    for name in options.rooms:
        found = run_room(name, ROOT / "build" / "mutants" / name, children=options.children, share=options.share)
        outcomes.append(found)
        killed, floor = found.mutants - len(found.survivors), ROOMS[name].floor
        print(
            f"{name:<12}{found.mutants:>8}{killed:>8}{len(found.survivors):>10}"
            f"{found.score:>8.1%}{floor:>8.0%}{found.took_s:>6.0f} s",
            flush=True,
        )
    for found in outcomes:
        if found.survivors:
            print(f"\n{found.room}: {len(found.survivors)} survived", *found.survivors, sep="\n")
    below = [o.room for o in outcomes if o.score < ROOMS[o.room].floor]
    if below:
        print(f"\nerror: below the floor: {', '.join(below)}", file=sys.stderr)
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
