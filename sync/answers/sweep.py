"""What the change feed cannot show, found without reading everything at once: which tasks are gone."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

from labelloop.clock import LABEL_STUDIO_FORMAT, parse
from labelloop.labels.results import LabelSchema
from labelloop.studio.client import TaskFeed
from labelloop.studio.rows import TaskStub

EPOCH = "1970-01-01T00:00:00.000000Z"
LEAF = 500  # ids that are compared one by one; larger ranges are halved
SEARCHES = 64  # ranges that are looked into at most: where more is gone, reading everything is quicker


class Sweep:
    """A reading of every task, page by page, with any pause between the pages.

    Pages come by ascending time of change and tasks only move towards the end, so that none which is there all the
    while is passed over. What was known at the beginning and is not met is gone.
    """

    def __init__(self, studio: TaskFeed, project: int, schema: LabelSchema, known: Iterable[int]) -> None:
        self._studio, self._project, self._schema = studio, project, schema
        self._pages: Iterator[list[TaskStub]] | None = None
        self._since = self._next = EPOCH
        self.missing = set(known)  # tasks that were known at the beginning and not met so far
        self.took_s = 0.0  # in Label Studio

    def page(self) -> list[TaskStub] | None:
        """The next tasks; None after the last. After an error it goes on where it was."""
        pages = self._pages or self._studio.changes(self._project, self._schema, self._next)
        self._pages = None  # a generator that has raised looks like an end
        began = time.monotonic()
        stubs = next(pages, None)
        self.took_s += time.monotonic() - began
        if stubs:
            self._pages, self._since = pages, self._next
            self._next = earlier(stubs[-1].updated_at, timedelta(microseconds=1))
            self.missing.difference_update(stub.id for stub in stubs)
        return stubs

    def again(self) -> None:
        """The last page could not be used: read it once more."""
        self._pages, self._next = None, self._since


def find_missing(studio: TaskFeed, project: int, tasks: Sequence[int], surplus: int) -> set[int] | None:
    """Which ``surplus`` of these tasks (ids, ascending) Label Studio has no more; None: too many to search for.

    Ranges whose count differs are halved: a few small requests for one deleted task, however large the project.
    """
    missing: set[int] = set()
    ranges = [(0, len(tasks), surplus)]
    searched = 0
    while ranges:
        begin, end, lacking = ranges.pop()
        searched += 1
        if searched > SEARCHES:
            return None
        if end - begin <= LEAF:
            part = tasks[begin:end]
            missing |= set(part) - studio.task_ids(project, (part[0], part[-1]))
            continue
        middle = (begin + end) // 2
        lower = middle - begin - studio.task_count(project, (tasks[begin], tasks[middle - 1]))
        ranges += [part for part in ((begin, middle, lower), (middle, end, lacking - lower)) if part[2] > 0]
    return missing


def earlier(moment: str, by: timedelta) -> str:
    """A time in the feed's form, some while before another one."""
    return (parse(moment) - by).strftime(LABEL_STUDIO_FORMAT)
