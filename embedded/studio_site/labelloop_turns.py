"""Two people never get the same task from a Label Studio on SQLite.

Label Studio 1.23 chooses the next task and then locks it. On PostgreSQL the row is locked in between; on SQLite
nothing is, and people who ask within the same tenth of a second are served the same image. One process serves
everybody there, so it is enough that they are served one after the other.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

NEXT = re.compile(r"^/api/projects/\d+/next/?$")
ACTIONS = re.compile(r"^/api/dm/actions/?$")  # the label stream of the web page
STREAM = {"next_task"}

_turn = threading.Lock()


class NextTaskInTurn:
    """Django middleware."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response

    def __call__(self, request: Any) -> Any:
        """Requests for a next task wait for each other, all others for nobody."""
        if not _asks_for_next(request):
            return self._get_response(request)
        with _turn:
            return self._get_response(request)


def _asks_for_next(request: Any) -> bool:
    if ACTIONS.match(request.path):
        return request.GET.get("id") in STREAM
    return bool(NEXT.match(request.path))
