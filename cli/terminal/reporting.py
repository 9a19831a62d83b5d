"""How far a step has got, to people: bars on a terminal, elsewhere lines with the time left, never long silence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from operations.reporting import Report

EVERY_S = 5.0  # between two lines of one step


@contextmanager
def reporting(console: Console) -> Iterator[Report]:
    """Bars with time left on a terminal, lines elsewhere."""
    if not console.is_terminal:
        spoken = Spoken()

        def say(what: str, done: int, of: int) -> None:
            if text := spoken(what, done, of):
                console.print(text, highlight=False, markup=False, soft_wrap=True)

        yield say
        return
    count = TextColumn("{task.completed:.0f}/{task.total:.0f}")
    what = TextColumn("{task.description}", markup=False)
    columns = (what, BarColumn(), count, TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=max(of, 1))
            progress.update(tasks[what], completed=done, total=max(of, 1))

        yield report


class Spoken:
    """What, done, of in; a line out where one is due: as a step begins, every few seconds, and as it ends."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, every_s: float = EVERY_S) -> None:
        self._clock, self._every_s = clock, every_s
        self._began: dict[str, tuple[float, int]] = {}  # step -> when it began, and how much was done then
        self._lines: dict[str, tuple[float, bool]] = {}  # step -> when it was last said, and whether as done

    def __call__(self, what: str, done: int, of: int) -> str | None:
        now, ended = self._clock(), done >= of
        began, first = self._began.setdefault(what, (now, done))
        last = self._lines.get(what)
        if last and (now - last[0] < self._every_s if ended == last[1] else not ended):
            return None
        self._lines[what] = (now, ended)
        elapsed, moved = now - began, done - first
        left = f", about {elapsed * (of - done) / moved:.0f} s left" if moved and not ended and elapsed > 1 else ""
        return f"{what}: {done}/{of}" + (f", {elapsed:.0f} s" if last else "") + left
