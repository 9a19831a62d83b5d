"""The embedded Label Studio hands out one task at a time."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from embedded.services import STUDIO_SITE

sys.path.append(str(STUDIO_SITE))
from labelloop_turns import NextTaskInTurn


@dataclass
class View:
    """Counts how many are inside at once."""

    inside: int = 0
    most: int = 0
    count: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, _request: object) -> str:
        with self.count:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(0.02)
        with self.count:
            self.inside -= 1
        return "answer"


def _asked_by_four(path: str, **query: str) -> int:
    view = View()
    turn = NextTaskInTurn(view)
    request = SimpleNamespace(path=path, GET=query)
    threads = [threading.Thread(target=turn, args=(request,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return view.most


@pytest.mark.parametrize("path", ["/api/projects/12/next", "/api/projects/12/next/"])
def test_people_get_their_next_task_in_turn(path: str) -> None:
    assert _asked_by_four(path) == 1


def test_the_label_stream_of_the_web_page_too() -> None:
    assert _asked_by_four("/api/dm/actions/", id="next_task") == 1


def test_nothing_else_waits() -> None:
    assert _asked_by_four("/api/dm/actions/", id="delete_tasks") == 4
    assert _asked_by_four("/api/projects/12/nextish") == 4


def test_an_error_leaves_the_turn_to_the_next() -> None:
    def broken(_request: object) -> None:
        raise ValueError

    request = SimpleNamespace(path="/api/projects/1/next", GET={})
    with pytest.raises(ValueError):
        NextTaskInTurn(broken)(request)
    assert _asked_by_four("/api/projects/1/next") == 1
