"""Empty answers of a frozen snapshot in; deleted in Label Studio, so that their tasks are shown again, out.

Label Studio shows no task again that has an answer, an empty one included. Each is recorded in the state bucket before
it is deleted. A watcher that dies in between leaves the answer, and it is found again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import structlog

from labelloop.clock import age_s
from labelloop.errors import StudioError
from labelloop.objects.storage import ObjectStore
from labelloop.records.json import canonical, to_dict
from labelloop.records.snapshots import Snapshot
from labelloop.records.tasks import Annotation, Task
from labelloop.store.projects import ProjectRecord
from labelloop.studio.client import Studio

PREFIX = "empty-answers/"  # one object for each that was deleted: whose it was, and when it was given
AT_ONCE = 2  # per look: people who submit wait as long as a delete takes
SETTLED_S = 5.0  # after the answer: its author may still go back to it
REST_S = 60.0  # after a refusal

log = structlog.get_logger()


class Empties:
    """One project's. Does nothing unless the project was made by labelloop, or its config says so."""

    def __init__(self, project: ProjectRecord, store: ObjectStore, studio: Studio) -> None:
        setting = project.config.answers.reopen_empty
        self._wanted = project.made if setting is None else setting
        self._store, self._studio = store, studio
        self._looked_at = ""  # snapshot
        self._waiting: dict[tuple[int, int], tuple[Task, Annotation]] = {}
        self._rests_until = 0.0
        self.deleted = 0  # since the watcher's start
        self.problem: str | None = None

    def turn(self, snapshot: Snapshot) -> None:
        """Delete a few of those that the snapshot holds."""
        if not self._wanted or time.monotonic() < self._rests_until:
            return
        if snapshot.id != self._looked_at:
            self._waiting = {(task.id, a.id): (task, a) for task, a in empty_of(snapshot.tasks)}
            self._looked_at = snapshot.id
        settled = [key for key, (_, a) in self._waiting.items() if age_s(a.updated_at) > SETTLED_S]
        try:
            for key in settled[:AT_ONCE]:
                self._delete(*self._waiting[key])
                del self._waiting[key]
            self.problem = None
        except StudioError as error:
            self._rests_until = time.monotonic() + REST_S
            self.problem = f"empty answers cannot be deleted: {error}"
            log.warning("an empty answer was not deleted", action="empty", reason=str(error))

    def facts(self) -> dict[str, Any]:
        """What `labelloop status` shows."""
        return {"wanted": self._wanted, "deleted": self.deleted, "waiting": len(self._waiting), "problem": self.problem}

    def _delete(self, task: Task, answer: Annotation) -> None:
        kept = {**to_dict(answer), "task": task.id, "uri": task.uri}
        self._store.put(f"{PREFIX}{answer.created_at}-{task.id}-{answer.id}.json", canonical(kept))
        if self._studio.delete_empty(task.id, answer):
            self.deleted += 1
            log.info("empty answer deleted", action="empty", task=task.id, annotation=answer.id,
                     by=answer.completed_by, given_at=answer.updated_at)  # fmt: skip


def empty_of(tasks: Mapping[int, Task]) -> Iterator[tuple[Task, Annotation]]:
    """Answers in which nothing was chosen. What was skipped, marked, or cannot be read is none of them."""
    for task in tasks.values():
        for a in task.annotations:
            if a.label is None and not (a.problem or a.cancelled or a.ground_truth or a.seed):
                yield task, a
