"""A project as Label Studio holds it in, records that outlive it out; and back into a project of the same kind.

Beside `studio`, the one place that knows how Label Studio writes tasks, annotations and settings.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from labelloop.errors import StudioError
from labelloop.labels.results import LabelSchema
from labelloop.records.json import fields_of
from labelloop.studio.client import Studio, StudioProject
from labelloop.studio.pieces import Pieces
from labelloop.studio.rows import UNREADABLE, is_on, moment, number_of, person, seconds, text

PAGE = 1000
SETTINGS = (  # what people set in a project, besides title and label config
    "description", "expert_instruction", "show_instruction", "show_skip_button", "enable_empty_annotation",
    "show_annotation_history", "color", "maximum_annotations", "skip_queue", "show_collab_predictions",
    "reveal_preannotations_interactively", "evaluate_predictions_automatically",
)  # fmt: skip
RESTORED = "restored"  # in the meta of a result or task: what Label Studio does not take of an annotation
REMOVE_TRIES = 5
REMOVE_PAUSE_S = 1.0
PREDICTION = ("model_version", "result", "score")  # what is kept of the one that was shown
IN_META = ("by", "created_at", "updated_at")


@dataclass(frozen=True, slots=True)
class KeptAnnotation:
    """One answer. ``result`` as Label Studio writes it."""

    result: Sequence[Mapping[str, Any]]
    created_at: str
    updated_at: str
    id: int = 0
    by: str | None = None  # e-mail
    cancelled: bool = False
    ground_truth: bool = False
    lead_time: float | None = None
    seen: Mapping[str, Any] | None = None  # the prediction that was shown: version, result, score


@dataclass(frozen=True, slots=True)
class KeptTask:
    """One task with its answers. ``data`` and ``meta`` as Label Studio writes them."""

    id: int
    data: Mapping[str, Any]
    meta: Mapping[str, Any] = field(default_factory=dict)
    annotations: tuple[KeptAnnotation, ...] = ()

    def uri(self, schema: LabelSchema) -> str:
        """The image's address; empty where there is none."""
        return schema.uri(self.data)


def task_line(task: KeptTask) -> dict[str, Any]:
    """As JSON. What Label Studio wrote is passed on as it is: it may be nested deeply."""
    line = {f.name: getattr(task, f.name) for f in fields(task)}
    return line | {"annotations": [{f.name: getattr(a, f.name) for f in fields(a)} for a in task.annotations]}


def task_of(line: Mapping[str, Any]) -> KeptTask:
    """The inverse of `task_line`."""
    annotations = tuple(KeptAnnotation(**fields_of(KeptAnnotation, a)) for a in line.get("annotations", ()))
    return KeptTask(**{**fields_of(KeptTask, line), "annotations": annotations})


class StudioArchive:
    """One server, read and written as a whole project at a time. Every method may raise StudioError."""

    def __init__(self, studio: Studio) -> None:
        self._studio, self._call = studio, studio.http.call
        self._pieces = Pieces(studio.http)
        self._people: dict[int, str] | None = None
        self.damaged: list[str] = []  # what of the tasks could not be read, and why

    # --- out

    def settings(self, project: int) -> dict[str, Any]:
        """What people have set in a project."""
        data = self._call("GET", f"api/projects/{project}/")
        return {name: data[name] for name in SETTINGS if data.get(name) is not None}

    def tasks(self, project: int) -> Iterator[list[KeptTask]]:
        """Every task, in pages by id; one that comes or goes meanwhile may be there or not."""
        last = 0
        while rows := [row for row in self._page(project, last) if number_of(row)]:
            last = max(filter(None, map(number_of, rows)))
            answered = [number_of(r) or 0 for r in rows if r.get("annotations")]  # its counters may lag behind for good
            answers = self._answers(project, answered)
            yield [KeptTask(i, r["data"], _object(r.get("meta")), answers.get(i, ())) for i, r in self._whole(rows)]

    def _page(self, project: int, after: int) -> list[Any]:
        query = {
            "filters": {"conjunction": "and", "items": [{
                "filter": "filter:tasks:id", "operator": "greater", "type": "Number", "value": after}]},
            "ordering": ["tasks:id"],
        }  # fmt: skip
        return self._pieces.page({
            "project": project, "page_size": PAGE, "page": 1, "fields": "all", "resolve_uri": "false",
            "include": "id,data,meta,annotations", "query": json.dumps(query),
        })  # fmt: skip

    def _whole(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Tasks that can be kept, with their numbers; the others are noted in `damaged`."""
        for row in rows:
            if isinstance(row.get("data"), Mapping):
                yield number_of(row) or 0, row
            else:
                self._lack(f"task {number_of(row)}", text(row.get(UNREADABLE)) or "its data is no object")

    def _answers(self, project: int, ids: Sequence[int]) -> dict[int, tuple[KeptAnnotation, ...]]:
        by_task: dict[int, tuple[KeptAnnotation, ...]] = {}
        for row in self._pieces.export(project, ids):
            task = number_of(row)
            if task is not None:
                kept = [self._kept(a, task) for a in _objects(row.get("annotations"))]
                by_task[task] = tuple(sorted(filter(None, kept), key=lambda a: (a.updated_at, a.id)))
        return by_task

    def _kept(self, data: Mapping[str, Any], task: int) -> KeptAnnotation | None:
        if UNREADABLE in data:
            self._lack(f"answer {number_of(data)} of task {task}", text(data[UNREADABLE]))
            return None
        prediction, result = _object(data.get("prediction")), data.get("result")
        return KeptAnnotation(
            result=result if isinstance(result, list) else [], created_at=moment(data.get("created_at")),
            updated_at=moment(data.get("updated_at")), id=number_of(data) or 0,
            by=self._emails().get(person(data.get("completed_by")) or 0),
            cancelled=is_on(data.get("was_cancelled")), ground_truth=is_on(data.get("ground_truth")),
            lead_time=seconds(data.get("lead_time")),
            seen={k: prediction.get(k) for k in PREDICTION} if prediction.get("model_version") else None,
        )  # fmt: skip

    def _lack(self, what: str, why: str) -> None:
        self.damaged.append(f"{what}: {why}")

    def _emails(self) -> dict[int, str]:
        if self._people is None:
            self._people = self._studio.people()
        return self._people

    # --- back in

    def create(self, title: str, label_config: str, settings: Mapping[str, Any]) -> StudioProject:
        """A project with these settings; those that this server does not know are left out."""
        project = self._studio.create_project(title, label_config)
        chosen = {name: value for name, value in settings.items() if name in SETTINGS}
        if chosen and not self._takes(project.id, chosen):
            for name, value in chosen.items():
                self._takes(project.id, {name: value})
        return project

    def _takes(self, project: int, settings: Mapping[str, Any]) -> bool:
        try:
            self._studio.update_project(project, **settings)
        except StudioError as error:
            if error.status != 400:
                raise
            return False
        return True

    def remove(self, project: int) -> None:
        """Delete a project with all that is in it.

        Predictions or answers that arrive meanwhile make Label Studio refuse (500) and delete nothing: then once more.
        """
        for more in reversed(range(REMOVE_TRIES)):
            try:
                self._call("DELETE", f"api/projects/{project}/")
                return
            except StudioError as error:
                if error.status != 500 or not more:
                    raise
            time.sleep(REMOVE_PAUSE_S)

    def answer(self, task: int, kept: KeptTask, schema: LabelSchema) -> None:
        """Give a task that shows the same image the kept answers, in their order, and whatever else it held."""
        meta = _with_lost(kept)
        if dict(kept.data) != {schema.data_key: kept.uri(schema)} or meta:
            self._call("PATCH", f"api/tasks/{task}/", json={"data": dict(kept.data), "meta": meta})
        for annotation in kept.annotations:
            self._call("POST", f"api/tasks/{task}/annotations/", json=self._body(annotation))

    def add(self, project: int, tasks: Sequence[KeptTask]) -> None:
        """New tasks with their answers; StudioError where not all were taken."""
        rows = [{"data": dict(t.data), "meta": _with_lost(t), "annotations": [self._body(a) for a in t.annotations]}
                for t in tasks]  # fmt: skip
        taken = self._studio.import_tasks(project, rows)
        if taken != len(rows):
            raise StudioError(f"Label Studio took {taken} of {len(rows)} tasks")

    def _body(self, kept: KeptAnnotation) -> dict[str, Any]:
        """What Label Studio takes; the rest stands in the result's meta."""
        ids = {email: number for number, email in self._emails().items()}
        body: dict[str, Any] = {
            "result": [_noted(item, kept) for item in kept.result if _is_taken(item)], "was_cancelled": kept.cancelled,
            "ground_truth": kept.ground_truth, "lead_time": kept.lead_time,
        }  # fmt: skip
        return body | ({"completed_by": ids[kept.by]} if kept.by in ids else {})


def _noted(item: Mapping[str, Any], kept: KeptAnnotation) -> dict[str, Any]:
    meta = _object(item.get("meta"))
    return {**item, "meta": {**meta, RESTORED: meta.get(RESTORED) or _lost(kept)}}


def _is_taken(item: object) -> bool:
    """Label Studio keeps others where they are imported with a task, and fails on them where somebody answers."""
    return isinstance(item, Mapping) and isinstance(item.get("value", {}), Mapping)


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _lost(kept: KeptAnnotation) -> dict[str, Any]:
    return {name: getattr(kept, name) for name in IN_META}


def _with_lost(task: KeptTask) -> dict[str, Any]:
    """The task's meta, with what answers without a result cannot carry themselves."""
    bare = [_lost(a) for a in task.annotations if not a.result]
    return {**({RESTORED: bare} if bare else {}), **task.meta}
