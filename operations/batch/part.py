"""What a stopped command had done of files on this machine: lines beside the output, taken up by the next one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from labelloop.objects.formats import UNREADABLE, typed
from labelloop.records.batches import Guess


@dataclass(frozen=True, slots=True)
class Stat:
    """The same file has the same."""

    size: int
    modified_ns: int


class Part:
    """Append-only; the first line says of what. Other work's lines are written over."""

    def __init__(self, path: Path, what: Mapping[str, Any]) -> None:
        self.path = path
        self.done: dict[str, tuple[Stat, Guess]] = {}
        self._what = json.loads(json.dumps(what))
        lines = self._kept()
        self._file = path.open("w", encoding="utf-8", errors="surrogateescape")
        self._write([self._what, *lines])

    def add(self, guesses: Iterable[tuple[Stat, Guess]]) -> None:
        """Lines that a killed process leaves whole, but for the last one."""
        self._write([asdict(stat) | asdict(guess) for stat, guess in guesses])

    def drop(self) -> None:
        """It is written where it was wanted."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Part:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()

    def _kept(self) -> list[Any]:
        """What can be read of an earlier one; nothing where it was about other images or another version."""
        kept: list[Any] = []
        try:
            with self.path.open(encoding="utf-8", errors="surrogateescape") as file:
                if json.loads(file.readline()) != self._what:
                    return []
                for text in file:
                    line = json.loads(text)
                    stat, guess = typed(Stat, line), typed(Guess, line)
                    self.done[guess.file] = (stat, guess)
                    kept.append(line)
        except UNREADABLE:  # there is none, or its end is cut off
            pass
        return kept

    def _write(self, lines: Iterable[Any]) -> None:
        self._file.writelines(json.dumps(line) + "\n" for line in lines)
        self._file.flush()
