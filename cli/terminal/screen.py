"""What is printed: text that others wrote neither styles the page, nor steers the terminal, nor fails to be encoded."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from labelloop.names import harmless


class Screen(Console):
    """A console whose strings are text, not markup: what is coloured is a `Text`, or says ``style``."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False)

    @property
    def file(self) -> IO[str]:
        """Standard output or error as they are now; nowhere where the caller has closed them."""
        stream: IO[str] | None = self._file or (sys.stderr if self.stderr else sys.stdout)
        return getattr(stream, "rich_proxied_file", stream) if stream is not None else _nowhere()  # while it is live

    @file.setter
    def file(self, stream: IO[str]) -> None:
        self._file = stream

    @property
    def encoding(self) -> str:
        """Of the stream as it is now: boxes and dots are drawn with what it knows."""
        return (getattr(self.file, "encoding", None) or "utf-8").lower()

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does, without what would reach the terminal as a command or could not be written."""
        encoding = self.encoding
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=_written(segment.text, encoding))


def _written(text: str, encoding: str) -> str:
    return harmless(text).encode(encoding, "backslashreplace").decode(encoding)


@functools.cache
def _nowhere() -> IO[str]:
    return Path(os.devnull).open("w", encoding="utf-8")  # as long as the process lives


def end_output() -> None:
    """Write what is left; where that cannot be written, nobody tries again when the process ends."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(_nowhere().fileno(), sys.stdout.fileno())
        raise


def show_json(data: Any) -> None:
    """One JSON value on standard output, for machines: readable where the encoding allows it, valid in any case."""
    text = json.dumps(data, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(data)
    print(text)


def show_text(text: str) -> None:
    """A page of text as it is, lines unbroken."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(_written(text, encoding))
