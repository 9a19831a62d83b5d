"""`python -m tests.faults.rehearsal`: `labelloop simulate` while the watcher is killed, Valkey flushed and S3 cut.

Prints the simulation's figures as its last line; `lost` compares the drained snapshot with Label Studio's own export,
annotation by annotation.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from operations.simulation.oracle import Rates
from operations.simulation.simulate import Job, prepare, simulate
from tests.faults.schedule import Fault
from tests.faults.world import World, running_world

FAULTS = ((0.25, "kill", "sync", 0.0), (0.50, "flush", "valkey", 0.0), (0.75, "cut", "s3", 20.0))


class Breaker:
    """Breaks one thing after another as the labels come in."""

    def __init__(self, world: World, console: Console) -> None:
        self._world, self._console = world, console
        self._left = list(FAULTS)
        self.threads: list[threading.Thread] = []

    def __call__(self, what: str, done: int, of: int) -> None:
        """The simulation's progress."""
        if what == "label" and done % 25 == 0:
            self._console.print(f"{what}: {done}/{of}")
        while what == "label" and self._left and done >= self._left[0][0] * of:
            _, kind, where, lasts = self._left.pop(0)
            fault = Fault(done, kind, where, lasts)
            self._console.print(f"now: {fault}", style="yellow")
            self.threads.append(threading.Thread(target=self._world.break_, args=(fault,), daemon=True))
            self.threads[-1].start()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--labels", type=int, default=300)
    parser.add_argument("--rate", type=float, default=0.05, help="of skips, of changes and of deletes")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(argv)
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="labelloop-faults-") as folder, running_world(Path(folder)) as world:
        source, held_out = prepare(
            Path(folder), images=asked.images, test=asked.test, config=asked.config, reveal=None, seed=asked.seed
        )
        breaker = Breaker(world, console)
        job = Job(asked.labels, Rates(asked.rate, asked.rate, asked.rate), asked.seed)
        figures = simulate(world.direct, source, held_out, job, breaker)
        for thread in breaker.threads:
            thread.join()
    print(json.dumps(figures))
    return 1 if figures["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
