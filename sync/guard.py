"""The newest snapshot in, who should be talked with out: looked for in the watcher's spare time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import structlog

from labelloop.records.snapshots import Snapshot
from labelloop.records.tasks import Task
from labelloop.rules.schema import LabelRules
from labelloop.rules.value import Look, Unread, in_order, looks_of, warnings_of
from sync.pace import Pace

EVERY_S = 10.0
SHARE = 0.01  # of the watcher's time: it goes through every answer there is

log = structlog.get_logger()


class ReviewGuard:
    """One project's anchoring guard."""

    def __init__(self, rules: LabelRules) -> None:
        self._rules = rules
        self._pace = Pace(EVERY_S, SHARE)
        self._done: str | None = None  # the snapshot that was looked at
        self._due = 0.0
        self._kept: dict[int, tuple[Task, list[Look]]] = {}
        self.warnings: tuple[Unread, ...] = ()

    def turn(self, snapshot: Snapshot) -> None:
        """Look again where answers have come since, but not all the time."""
        began = time.monotonic()
        if snapshot.id == self._done or began < self._due:
            return
        before = {warning.who for warning in self.warnings}
        self._kept = dict(self._fresh(snapshot.tasks))
        self.warnings = warnings_of(in_order(look for _, looks in self._kept.values() for look in looks))
        self._done = snapshot.id
        for warning in self.warnings:
            if warning.who not in before:
                log.warning("pre-labels may be accepted unread, see `labelloop value`", action="unread",
                            annotator=warning.who, odds=round(warning.odds), accepted=len(warning.tasks))  # fmt: skip
        self._due = time.monotonic() + self._pace.rest_s(time.monotonic() - began)

    def _fresh(self, tasks: Mapping[int, Task]) -> Iterator[tuple[int, tuple[Task, list[Look]]]]:
        """Each task with its looks; one that is the same object is not read again."""
        for number, task in tasks.items():
            kept = self._kept.get(number)
            yield number, kept if kept and kept[0] is task else (task, looks_of([task], self._rules))

    def facts(self) -> list[dict[str, Any]]:
        """What `labelloop status` shows: without the tasks, which may be many."""
        return [asdict(replace(warning, tasks=())) for warning in self.warnings]
