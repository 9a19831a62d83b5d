"""A page that is drawn again every second on a terminal; what does not fit is reached with the arrow keys."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

EVERY_S = 1.0
KEYS = {b"\x1b[A": -1, b"k": -1, b"\x1b[B": 1, b"j": 1}  # lines
PAGES = {b"\x1b[5~": -1, b"\x1b[6~": 1, b" ": 1}
ENDS = {b"q", b"Q"}


class ScrollWindow:
    """As many lines of the page as the terminal has, from ``top`` on."""

    def __init__(self) -> None:
        self.page: RenderableType = Text("reading …", style="dim")
        self.top, self._height, self._lines = 0, 24, 0

    def move(self, key: bytes) -> None:
        """Scroll by what the key says; others do nothing."""
        self.top += KEYS.get(key, 0) + PAGES.get(key, 0) * max(self._height - 2, 1)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self._height = options.max_height
        lines = console.render_lines(self.page, options.update(height=None), pad=False)
        self._lines = len(lines)
        room = self._height - (self._lines > self._height)
        self.top = max(0, min(self.top, self._lines - room))
        for line in lines[self.top : self.top + room]:
            yield from line
            yield Segment.line()
        if self._lines > room:
            shown = f"lines {self.top + 1} to {min(self.top + room, self._lines)} of {self._lines}: ↑ ↓ scroll, q ends"
            yield Text(shown, style="reverse", no_wrap=True, overflow="ellipsis", end="")


def watch(console: Console, draw: Callable[[], RenderableType]) -> None:
    """Until q or Ctrl-C."""
    window = ScrollWindow()
    with (
        Live(window, console=console, auto_refresh=False, screen=True, vertical_overflow="crop") as live,
        _keys() as key,
    ):
        try:
            live.refresh()
            while True:
                window.page = draw()
                live.refresh()
                end = time.monotonic() + EVERY_S
                while (left := end - time.monotonic()) > 0:
                    pressed = key(left)
                    if pressed in ENDS:
                        return
                    if pressed:
                        window.move(pressed)
                        live.refresh()
        except KeyboardInterrupt:
            return


@contextmanager
def _keys() -> Iterator[Callable[[float], bytes]]:
    """The next key within so many seconds, or nothing; a standard input that is no terminal has none."""
    if sys.stdin is None or not sys.stdin.isatty():
        yield _no_key
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        yield lambda seconds: os.read(number, 16) if select.select([number], [], [], seconds)[0] else b""
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _no_key(seconds: float) -> bytes:
    time.sleep(seconds)
    return b""
