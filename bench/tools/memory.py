"""What a process and its children hold in memory, looked at many times a second (Linux)."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Self

PAGE = 4096
EVERY_S = 0.02


class Peak:
    """While the block lasts: the most that a process and all below it held at once, in bytes."""

    def __init__(self, pid: int) -> None:
        self.most = self.last = 0
        self.parts: list[int] = []  # of each process at that moment, the largest first
        self._pid, self._stop = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._look()

    def _look(self) -> None:
        parts = [resident(pid) for pid in (self._pid, *below(self._pid))]
        self.last = sum(parts)
        if self.last > self.most:
            self.most, self.parts = self.last, sorted(parts, reverse=True)


def resident(pid: int) -> int:
    """Bytes; 0 for a process that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def below(pid: int) -> list[int]:
    """Children, and theirs."""
    try:
        children = [int(c) for task in Path(f"/proc/{pid}/task").iterdir()
                    for c in (task / "children").read_text().split()]  # fmt: skip
    except OSError:
        return []
    return children + [c for child in children for c in below(child)]
