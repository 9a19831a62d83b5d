"""How an operation tells how far it has got."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str, int, int], None]  # what, done, of
