"""How an operation reports its progress."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str, int, int], None]  # what, done, of
