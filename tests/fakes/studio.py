"""Label Studio as the watcher sees it, in memory. tests/acceptance/test_studio_contract.py holds it to the real one."""

from __future__ import annotations

import json
from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from labelloop.clock import LABEL_STUDIO_FORMAT
from labelloop.errors import StudioError
from labelloop.labels.results import LabelSchema, storable
from labelloop.records.tasks import Annotation, QueuePlace, Seen, Task
from labelloop.studio.client import StudioProject
from labelloop.studio.pieces import NO_ANSWER, NO_DATA
from labelloop.studio.rows import UNREADABLE, TaskStub, annotation_of

Shown = tuple[str, QueuePlace]  # a prediction: its version, and what it says


class FakeStudio:
    """Tasks, annotations and predictions of one project. Every change moves `updated_at`, as on the server."""

    def __init__(self, schema: LabelSchema, *, page: int = 1000) -> None:
        self._schema, self._page = schema, page
        self._tasks: dict[int, Task] = {}
        self._moves: list[tuple[str, int]] = []  # (time, task) of every change, oldest first: few of them are read
        self._predictions: dict[int, list[tuple[str, QueuePlace]]] = {}
        self._clock = datetime(2026, 1, 1, tzinfo=UTC)
        self._ids = 0
        self.model_version: str | None = None
        self._data: dict[int, object] = {}  # of tasks, beside their image
        self._spoiled: set[int] = set()  # tasks whose data cannot be given out
        self.fetched: list[int] = []  # tasks that were asked for in full
        self.pushed: list[tuple[str, int]] = []  # (version, number) of each push

    # --- what the watcher calls

    def changes(self, _project: int, schema: LabelSchema, since: str) -> Iterator[list[TaskStub]]:
        place = bisect_right(self._moves, since, key=lambda move: move[0])
        while place < len(self._moves):
            page: list[TaskStub] = []
            while place < len(self._moves) and len(page) < self._page:
                moment, number = self._moves[place]
                task = self._tasks.get(number)
                if task and task.updated_at == moment:  # else it has moved on, or is deleted
                    stub = _stub(task, spoiled=number in self._spoiled)
                    page.append(replace(stub, said=schema.said(self._data.get(number))))
                place += 1
            if page:
                yield page
            if len(page) < self._page:  # what moves from now on is the next call's
                return

    def all_tasks(self, project: int, schema: LabelSchema) -> Iterator[list[TaskStub]]:
        return self.changes(project, schema, "")

    def task_count(self, _project: int, between: tuple[int, int] | None = None) -> int:
        return len(self.task_ids(_project, between)) if between else len(self._tasks)

    def task_ids(self, _project: int, between: tuple[int, int]) -> set[int]:
        return {i for i in range(between[0], between[1] + 1) if i in self._tasks}

    def tasks(self, _project: int, _schema: LabelSchema, ids: Sequence[int]) -> list[Task]:
        self.fetched += ids
        there = (self._tasks[i] for i in ids if i in self._tasks)
        return [replace(task, uri="") if task.id in self._spoiled else task for task in there]

    def push(self, _project: int, _schema: LabelSchema, version: str, places: Sequence[tuple[int, QueuePlace]]) -> int:
        for task, choice in places:
            self._predictions.setdefault(task, []).append((version, choice))
        self.pushed.append((version, len(places)))
        return len(places)

    def project(self, project: int) -> StudioProject:
        return StudioProject(project, "fake", 0, "", self.model_version, "Uncertainty sampling", 1)

    def update_project(self, project: int, *, model_version: str) -> StudioProject:
        if model_version not in self.prediction_counts(project):
            raise StudioError(f"Model version {model_version} does not exist", status=400)
        self.model_version = model_version
        return self.project(project)

    def prediction_counts(self, _project: int) -> dict[str, int]:
        counts: dict[str, int] = {}
        for stored in self._predictions.values():
            for version, _ in stored:
                counts[version] = counts.get(version, 0) + 1
        return counts

    def predicted_tasks(self, _project: int, version: str) -> set[int]:
        return {task for task, stored in self._predictions.items() if any(v == version for v, _ in stored)}

    def delete_predictions(self, _project: int, version: str) -> int:
        before = sum(map(len, self._predictions.values()))
        self._predictions = {t: [p for p in ps if p[0] != version] for t, ps in self._predictions.items()}
        return before - sum(map(len, self._predictions.values()))

    def delete_empty(self, task: int, answer: Annotation) -> bool:
        """As the real one; what cannot be read, or has another id or time, is kept."""
        held = self._tasks.get(task)
        there = next((a for a in held.annotations if a.id == answer.id), None) if held else None
        same = there is not None and (there.created_at, there.updated_at) == (answer.created_at, answer.updated_at)
        if there is None or not same or there.label or there.problem or there.cancelled or there.ground_truth:
            return False
        self.delete_annotation(task, answer.id)
        return True

    # --- what people do

    def add_task(self, uri: str, data: object = None) -> int:
        number = self._next_id()
        self._data[number] = data
        self._keep(Task(number, uri, self._now()))
        return number

    def opened(self, task: int) -> Shown | None:
        """The prediction that a page shows which is opened now."""
        return next((p for p in self._predictions.get(task, ()) if p[0] == self.model_version), None)

    def annotate(self, task: int, label: str | None, *, skip: bool = False, page: Shown | None = None) -> int:
        if page and page not in self._predictions.get(task, ()):
            raise StudioError("parent_prediction: object does not exist", status=400)
        moment, number = self._now(), self._next_id()
        shown = self.opened(task)
        prediction = _seen(*shown) if shown else None
        self._put(task, Annotation(number, moment, moment, None if skip else label, cancelled=skip, seen=prediction))
        return number

    def confirm_in_bulk(self, task: int) -> None:
        """The data manager's "Create Annotations From Predictions": nobody looked, and no prediction is noted."""
        _, choice = self._predictions[task][-1]
        moment = self._now()
        self._put(task, Annotation(self._next_id(), moment, moment, choice.label, completed_by=1, bulk=True))

    def mark_ground_truth(self, task: int, annotation: int) -> None:
        old = next(a for a in self._tasks[task].annotations if a.id == annotation)
        self._put(task, replace(old, ground_truth=True, updated_at=self._now()))

    def annotate_raw(self, task: int, result: Any) -> None:
        """Whatever a script sends, halves of characters included."""
        moment = self._now()
        row = {"id": self._next_id(), "created_at": moment, "updated_at": moment, "result": result}
        unsent = {} if storable(json.dumps(result, ensure_ascii=False)) else {UNREADABLE: NO_ANSWER}
        self._put(task, annotation_of({**row, **unsent}, self._schema))

    def change_data(self, task: int, data: object) -> None:
        self._data[task] = data
        self.touch(task)

    def spoil(self, task: int) -> None:
        """Put a half of a character into a task's data."""
        self._spoiled.add(task)
        self.touch(task)

    def change_annotation(self, task: int, annotation: int, label: str, *, by: int | None = None) -> None:
        old = next(a for a in self._tasks[task].annotations if a.id == annotation)
        self._put(task, replace(old, label=label, cancelled=False, updated_at=self._now(), changed_by=by, bulk=False))

    def delete_annotation(self, task: int, annotation: int) -> None:
        kept = tuple(a for a in self._tasks[task].annotations if a.id != annotation)
        self._keep(replace(self._tasks[task], annotations=kept, updated_at=self._now()))

    def delete_task(self, task: int) -> None:
        del self._tasks[task]

    def use_again(self, task: int, uri: str) -> None:
        """A new task under the id of a deleted one, as SQLite gives it."""
        self._keep(Task(task, uri, self._now()))

    def use_annotation_again(self, task: int, annotation: int, label: str) -> None:
        """A new annotation under the id of a deleted one."""
        moment = self._now()
        self._put(task, Annotation(annotation, moment, moment, label))

    def touch(self, task: int) -> None:
        """A live prediction moves `updated_at`, too."""
        self._keep(replace(self._tasks[task], updated_at=self._now()))

    def move_to(self, task: int, moment: str) -> None:
        """What a server writes whose clock is wrong."""
        self._keep(replace(self._tasks[task], updated_at=moment))

    def _put(self, task: int, annotation: Annotation) -> None:
        others = tuple(a for a in self._tasks[task].annotations if a.id != annotation.id)
        self._keep(replace(self._tasks[task], annotations=(*others, annotation), updated_at=self._now()))

    def _keep(self, task: Task) -> None:
        self._tasks[task.id] = task
        insort(self._moves, (task.updated_at, task.id))

    def _next_id(self) -> int:
        self._ids += 1
        return self._ids

    def _now(self) -> str:
        self._clock += timedelta(milliseconds=1500)
        return self._clock.strftime(LABEL_STUDIO_FORMAT)


def _seen(version: str, choice: QueuePlace) -> Seen:
    if choice.blind or choice.label is None:
        return Seen(version, None, blind=True)
    probability = None if choice.probability is None else round(choice.probability, 4)
    return Seen(version, choice.label, probability=probability)


def _stub(task: Task, *, spoiled: bool) -> TaskStub:
    moves = tuple(sorted((a.id, a.updated_at) for a in task.annotations))
    uri, problem = ("", NO_DATA) if spoiled else (task.uri, None)
    return TaskStub(task.id, uri, task.updated_at, moves, sum(a.cancelled for a in task.annotations), problem)
