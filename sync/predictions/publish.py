"""A deployed version's order in, predictions in Label Studio out; old predictions go when no page can need them."""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from labelloop.errors import StorageError
from labelloop.labels.results import LabelSchema
from labelloop.records.tasks import QueuePlace
from labelloop.rules.schema import LabelRules
from labelloop.store.projects import ProjectRecord
from labelloop.store.scores import Scores, ScoreStore
from labelloop.studio.client import Studio
from sync.predictions.push_size import PushSize
from sync.predictions.retired import Retired
from sync.predictions.shown import Seeing

LONG_AGO = datetime.fromtimestamp(0, UTC)
IDLE_S = 3.0  # nobody has submitted for so long: time for what can wait
GROWTH = 0.5  # while images stream in: recompute the order each time the pool has grown by this share
FRONT = 50  # of a window, at first; at once, as people are served meanwhile. The rest follows where nobody is waiting
MOST = 3  # windows of one version that wait in Label Studio at once

log = structlog.get_logger()
OpenTasks = Mapping[str, Sequence[int]]  # uri -> tasks that nobody has answered yet


@dataclass(frozen=True, slots=True)
class Published:
    """What Label Studio shows of us now."""

    version: str
    scores: str  # id of the order that was pushed last
    next_place: int  # places of that order from here on are not pushed yet
    tasks: Mapping[int, str]  # with a prediction of this version -> the image they show; empty: it is answered


class Publisher:
    """Keeps one project's predictions and its model version equal to the registry's champion."""

    def __init__(self, studio: Studio, project: ProjectRecord, schema: LabelSchema, scores: ScoreStore) -> None:
        self._studio, self._project, self._schema, self._scores = studio, project, schema, scores
        self._rules = LabelRules.of(project.config)
        self._push_size = PushSize()
        self._retired = Retired()
        self._attempt: Published | None = None  # what a push that failed would have led to
        self.published: Published | None = None
        self.order: str | None = None  # why the newest order is as it is, in words
        self.seeing = Seeing(self.place)

    def adopt(self, version: str, open_tasks: OpenTasks) -> None:
        """After a restart: take what is in Label Studio as pushed, so that nothing is pushed twice."""
        self._retired.recount(self._studio.prediction_counts(self._project.id))
        if self._studio.project(self._project.id).model_version != version:
            return
        self.published = self._already_pushed(version, open_tasks)
        if self.published:
            self.seeing.switched(version, LONG_AGO, LONG_AGO)

    def place(self, version: str, uri: str) -> QueuePlace | None:
        """An image's place in a version's order, as it is shown; None where that cannot be found out."""
        try:
            scores = self._scores.newest(version)
        except StorageError:
            return None
        place = scores.by_uri.get(uri) if scores else None
        return self._rules.shown(place, self._schema.classes) if place else None

    def publish(self, version: str, open_tasks: OpenTasks, *, idle_s: float = 0.0) -> bool:
        """Push the newest order's window where it is not pushed yet: its front at once, all of it in idle time.

        How large the front is, and how soon the next follows, goes by how long the server took for the last ones.
        False where there is no order yet.
        """
        scores = self._scores.newest(version)
        if scores is None:
            return False
        self.order = scores.policy
        window = self._project.config.queue.window
        front = self._push_size.size(FRONT, window)
        if self._push_size.rests and (self._attempt or self._left(open_tasks)):
            return True
        self._settle()
        done = self.published
        if done is None or done.version != version:
            self._begin(version, scores, open_tasks, front)
        elif done.scores != scores.id and self._has_room(open_tasks):
            self._push(scores, open_tasks, front)
        elif self._runs_low(scores, done, open_tasks, front // 2):
            self._push(scores, open_tasks, front - self._left(open_tasks))
        elif idle_s > IDLE_S and self._runs_low(scores, done, open_tasks, window - front // 2):
            self._push(scores, open_tasks, min(front, window - self._left(open_tasks)))
        return True

    def wants_order(self, version: str, pool: int, open_tasks: OpenTasks, *, settled: bool, snapshot: str) -> bool:
        """True where the order should be recomputed: none yet, ``pool`` (images) grew, or the window runs out.

        The same labels give the same order: what it leaves out (unreadable images, duplicates) it leaves out again.
        """
        scores = self._scores.newest(version)
        if scores is None:
            return True
        if pool > scores.pool * (1 if settled else 1 + GROWTH):
            return True
        done = self.published
        ran_out = done is not None and done.version == version and done.next_place >= len(scores.places)
        few = len(open_tasks) > self._left(open_tasks) < self._project.config.queue.window // 4
        return ran_out and few and scores.snapshot != snapshot

    def retire(self, ours: Iterable[str], *, idle_s: float) -> int:
        """Delete the predictions of one version that no page can need any more; returns how many went.

        ``ours``: versions that we showed; predictions of anybody else are not touched.
        """
        version = self._retired.due(self.published.version, ours, idle_s) if self.published else None
        if version is None:
            return 0
        count = self._studio.delete_predictions(self._project.id, version)
        self._retired.deleted(version)
        log.info("retired predictions", action="retire", version=version, count=count)
        return count

    def withdraw(self, schema: LabelSchema) -> None:
        """Label Studio has lost classes: what was pushed is taken back, and pushed again with those of ``schema``."""
        self._schema = schema
        if self.published and self.published.tasks:
            self._studio.delete_predictions(self._project.id, self.published.version)
            self._retired.deleted(self.published.version)
        self.published = None

    def check_version(self) -> None:
        """Mend the project's model version where somebody or something changed it: else the order is random."""
        done = self.published
        if done and done.tasks and self._studio.project(self._project.id).model_version != done.version:
            log.warning("model version was changed in Label Studio, setting it back", action="mend_version")
            self._switch(done.version)

    def _has_room(self, open_tasks: OpenTasks) -> bool:
        """As images stream in, order follows order: each adds predictions, and people wait while they are deleted."""
        return self._left(open_tasks) < MOST * self._project.config.queue.window

    def _runs_low(self, scores: Scores, done: Published, open_tasks: OpenTasks, few: int) -> bool:
        return done.next_place < len(scores.places) and self._left(open_tasks) < few

    def _left(self, open_tasks: OpenTasks) -> int:
        done = self.published
        return sum(1 for task, uri in done.tasks.items() if task in open_tasks.get(uri, ())) if done else 0

    def _begin(self, version: str, scores: Scores, open_tasks: OpenTasks, front: int) -> None:
        """Show another version: one that was live before with what still stands of it, a new one with its front."""
        pushed = self._already_pushed(version, open_tasks)
        if pushed is None:
            self._push(scores, open_tasks, front, fresh=True)
        else:
            self._switch(version)
            self.published = pushed

    def _already_pushed(self, version: str, tasks: OpenTasks) -> Published | None:
        """What Label Studio still has of a version, task by task; None where that is nothing.

        Places are gone through from the first again: those whose tasks have a prediction are left out.
        """
        scores = self._scores.newest(version)
        if scores is None or not self._retired.count(version):
            return None
        images = {task: uri for uri, those in tasks.items() for task in those}
        there = self._studio.predicted_tasks(self._project.id, version)
        return Published(version, scores.id, 0, {task: images.get(task, "") for task in there})

    def _push(self, scores: Scores, open_tasks: OpenTasks, size: int, *, fresh: bool = False) -> None:
        """Fresh: the first push of a version. Else only tasks that have no prediction of this version yet."""
        before = self.published
        already = {} if fresh or before is None else before.tasks
        same = before is not None and not fresh and before.scores == scores.id
        start = before.next_place if same and before else 0
        places, stop = _window(scores.places, open_tasks, already, start, size)
        tasks = {**already, **{task: choice.uri for task, choice in places}}
        after = Published(scores.version, scores.id, stop, tasks)
        if places:
            self._attempt = after
            self._send(scores.version, places)
            self._took_in(len(places))
        self.published = after
        log.info("pushed the window", action="push", version=scores.version, count=len(places))

    def _send(self, version: str, places: Sequence[tuple[int, QueuePlace]]) -> None:
        shown = [(task, self._rules.shown(choice, self._schema.classes)) for task, choice in places]
        began = time.monotonic()
        try:
            self._studio.push(self._project.id, self._schema, version, shown)
        finally:  # one that fails after a minute says most about what the server bears
            self._push_size.took(len(shown), time.monotonic() - began)

    def _settle(self) -> None:
        """After a push that failed: it may have arrived all the same, and then must not be sent again."""
        attempt = self._attempt
        if attempt is None:
            return
        there = self._studio.prediction_counts(self._project.id).get(attempt.version, 0)
        more = there - self._retired.count(attempt.version)
        if more > 0:
            self._took_in(more)
            self.published = attempt
        self._attempt = None

    def _took_in(self, count: int) -> None:
        """Label Studio has what we tried to push. It refuses a version that it has nothing of, so switch only now."""
        after = self._attempt
        assert after is not None
        self._retired.pushed(after.version, count)
        if self.published is None or self.published.version != after.version:
            self._switch(after.version)
        self._attempt = None

    def _switch(self, version: str) -> None:
        """One atomic change: from here on `next` goes by this version's scores.

        The backend's title is not touched: deleting predictions named like the title would unset the version.
        """
        began = datetime.now(UTC)
        self._studio.update_project(self._project.id, model_version=version)
        self.seeing.switched(version, began, datetime.now(UTC))


def _window(
    places: tuple[QueuePlace, ...], open_tasks: OpenTasks, already: Container[int], start: int, size: int
) -> tuple[list[tuple[int, QueuePlace]], int]:
    """(task id, choice) of the next ``size`` places that are still open, and where the next window begins."""
    places_of_tasks: list[tuple[int, QueuePlace]] = []
    for i in range(start, len(places)):
        if len(places_of_tasks) >= size:
            return places_of_tasks, i
        places_of_tasks += [(task, places[i]) for task in open_tasks.get(places[i].uri, ()) if task not in already]
    return places_of_tasks, len(places)
