"""The one place that speaks to Label Studio: its API in, frozen records out."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any, Protocol

from labelloop.clock import LABEL_STUDIO_FORMAT, parse
from labelloop.errors import StudioError
from labelloop.labels.results import LabelSchema, kind
from labelloop.records.tasks import Annotation, QueuePlace, Seen, Task
from labelloop.studio.empties import delete_empty
from labelloop.studio.http import OnCall, Reread, StudioHttp
from labelloop.studio.pieces import Pieces, rows_of
from labelloop.studio.rows import NEVER, NOBODY, TaskStub, moment, newest_of, number_of, raw_uri, seen_of, text, whole
from labelloop.studio.rows import stub_of as _stub
from labelloop.studio.rows import task_of as _task

PAGE = 1000
FIELDS = (  # of a project; unasked it comes with eight counts over all its tasks, annotations and predictions
    "id", "title", "created_at", "label_config", "model_version", "sampling", "maximum_annotations",
    "start_training_on_annotation_update", "evaluate_predictions_automatically", "show_collab_predictions",
)  # fmt: skip
STORAGE_SYNC_S = 1800.0  # Label Studio lists the whole bucket before it answers


@dataclass(frozen=True, slots=True)
class StudioProject:
    """What labelloop needs to know of a Label Studio project."""

    id: int
    title: str
    created: int  # unix seconds
    label_config: str
    model_version: str | None
    sampling: str
    maximum_annotations: int
    trains_on_submit: bool = False  # calls the backend inside the annotator's submit
    predicts_by_itself: bool = False  # asks the backend for predictions when a task is opened
    shows_predictions: bool = True


@dataclass(frozen=True, slots=True)
class NextTask:
    """What a person gets to see: the task, and the pre-label if one is shown."""

    id: int
    uri: str
    prediction_id: int | None
    prediction: Seen | None


class TaskFeed(Protocol):
    """What the watcher reads; `Studio`, or a fake. Every method may raise StudioError."""

    def changes(self, project: int, schema: LabelSchema, since: str) -> Iterator[list[TaskStub]]:
        """Pages of tasks whose `updated_at` lies behind ``since``, oldest first."""

    def all_tasks(self, project: int, schema: LabelSchema) -> Iterator[list[TaskStub]]:
        """Every task, in pages."""

    def tasks(self, project: int, schema: LabelSchema, ids: Sequence[int]) -> list[Task]:
        """Tasks with all annotations in full; deleted tasks are absent."""

    def task_count(self, project: int, between: tuple[int, int] | None = None) -> int:
        """How many tasks the project has now, or those of them whose ids lie between two, both included."""

    def task_ids(self, project: int, between: tuple[int, int]) -> set[int]:
        """Ids of the tasks between two, both included; at most `PAGE` of them."""


class Studio:
    """A Label Studio server under one account. Every method may raise StudioError."""

    def __init__(
        self, url: str, token: str, *, timeout_s: float = 60, reread: Reread | None = None,
        on_call: OnCall | None = None,
    ) -> None:  # fmt: skip
        """See `StudioHttp` for ``reread`` and ``on_call``."""
        self.http = StudioHttp(url, token, timeout_s=timeout_s, reread=reread, on_call=on_call)
        self.url = self.http.url
        self._call = self.http.call

    @property
    def _pieces(self) -> Pieces:
        return Pieces(self.http)

    def close(self) -> None:
        """Give the connections back."""
        self.http.close()

    # --- the server

    def version(self) -> str:
        """The release, e.g. 1.23.2."""
        return str(self._call("GET", "api/version")["release"])

    def whoami(self) -> str:
        """The account's e-mail; StudioError 401 where the token is dead."""
        return str(self._call("GET", "api/current-user/whoami")["email"])

    def people(self) -> dict[int, str]:
        """Account id -> e-mail of everybody in the organisation."""
        rows = [user for user in self._call("GET", "api/users/") if isinstance(user, Mapping)]
        return {number: text(user.get("email")) for user in rows if (number := whole(user.get("id")))}

    # --- projects

    def project(self, project: int) -> StudioProject:
        """One project."""
        return _project(self._call("GET", f"api/projects/{project}/", params={"include": ",".join(FIELDS)}))

    def title(self, project: int, created: int) -> str | None:
        """What a project is called now; None where Label Studio has that very one no more."""
        try:
            current = self.project(project)
        except StudioError as error:
            if error.status == 404:
                return None
            raise
        return current.title if current.created == created else None

    def create_project(self, title: str, label_config: str, instruction: str = "") -> StudioProject:
        """A project whose queue is ordered by score, lowest first. ``instruction``: HTML, shown before labelling."""
        body: dict[str, Any] = {"title": title[:50], "label_config": label_config, "sampling": "Uncertainty sampling"}
        if instruction:
            body |= {"expert_instruction": instruction, "show_instruction": True}
        return _project(self._call("POST", "api/projects/", json=body))

    def update_project(self, project: int, **fields: Any) -> StudioProject:
        """Change fields; returns the project as it is then."""
        include = ",".join({*FIELDS, *fields})  # a field that is not asked for is not written either
        return _project(self._call("PATCH", f"api/projects/{project}/", json=fields, params={"include": include}))

    def task_count(self, project: int, between: tuple[int, int] | None = None) -> int:
        """How many tasks the project has now, or those of them whose ids lie between two, both included."""
        params: dict[str, Any] = {"project": project, "page_size": 1, "include": "id"}
        return _count(self._feed(params | (_between(between) if between else {})), "total")

    def task_ids(self, project: int, between: tuple[int, int]) -> set[int]:
        """Ids of the tasks between two, both included; at most `PAGE` of them."""
        answer = self._feed({"project": project, "page_size": PAGE, "include": "id", **_between(between)})
        return {number for row in rows_of(answer) if (number := number_of(row))}

    # --- the change feed

    def changes(self, project: int, schema: LabelSchema, since: str) -> Iterator[list[TaskStub]]:
        """Pages of tasks whose `updated_at` lies behind ``since``, oldest first.

        Pages by value, not by offset: rows that move while we read cannot be skipped. Only where a whole page
        shares one time does it go on by offset.
        """
        page = 1
        while True:
            stubs = self._changed(project, schema, since, page)
            if stubs:
                yield stubs
            if len(stubs) < PAGE:
                return
            moved = stubs[-1].updated_at > stubs[0].updated_at
            since, page = (_just_before(stubs[-1].updated_at), 1) if moved else (since, page + 1)

    def all_tasks(self, project: int, schema: LabelSchema) -> Iterator[list[TaskStub]]:
        """Every task, in pages: what the feed cannot show (deleted tasks) is seen by what is missing here."""
        yield from self.changes(project, schema, "1970-01-01T00:00:00.000000Z")

    def _changed(self, project: int, schema: LabelSchema, since: str, page: int) -> list[TaskStub]:
        query = {
            "filters": {"conjunction": "and", "items": [{
                "filter": "filter:tasks:updated_at", "operator": "greater", "type": "Datetime", "value": since}]},
            "ordering": ["tasks:updated_at"],
        }  # fmt: skip
        include = "id,updated_at,annotations,total_annotations,cancelled_annotations,data"
        params = {"project": project, "page_size": PAGE, "page": page, "fields": "all", "include": include,
                  "resolve_uri": "false"}  # fmt: skip
        return [_stub(t, schema) for t in self._page({**params, "query": json.dumps(query)})]

    def tasks(self, project: int, schema: LabelSchema, ids: Sequence[int]) -> list[Task]:
        """Tasks with all annotations in full, skipped ones too; deleted tasks are absent."""
        tasks = (_task(row, schema) for row in self._pieces.export(project, ids))
        return [task for task in tasks if task.id != NOBODY]

    def _page(self, params: Mapping[str, Any]) -> list[Any]:
        """Tasks of one page; none where it lies past the end."""
        try:
            return self._pieces.page(params)
        except StudioError as error:
            if error.status == 404 and params["page"] > 1:
                return []
            raise

    def _feed(self, params: Mapping[str, Any]) -> Any:
        return self._call("GET", "api/tasks/", params=params)

    # --- predictions

    def push(self, project: int, schema: LabelSchema, version: str, places: Sequence[tuple[int, QueuePlace]]) -> int:
        """Store predictions for (task id, choice); blind ones and those without a label get an empty result.

        StudioError where fewer were stored than sent: invalid items are otherwise dropped in silence.
        """
        body = [_prediction(task, choice, schema, version) for task, choice in places]
        created = _count(self._call("POST", f"api/projects/{project}/import/predictions", json=body), "created")
        if created != len(body):
            raise StudioError(f"Label Studio stored {created} of {len(body)} predictions of {version}")
        return created

    def prediction_counts(self, project: int) -> dict[str, int]:
        """Model version -> number of predictions stored."""
        return {str(k): int(v) for k, v in self._call("GET", f"api/projects/{project}/model-versions/").items()}

    def predicted_tasks(self, project: int, version: str) -> set[int]:
        """Ids of the tasks that have a prediction of this version.

        Its cost grows with what is found: 0.3 s for 200 tasks on SQLite.
        """
        query = {
            "filters": {"conjunction": "and", "items": [{
                "filter": "filter:tasks:predictions_model_versions", "operator": "contains", "type": "List",
                "value": [version]}]},
            "ordering": ["tasks:id"],
        }  # fmt: skip
        params = {"project": project, "page_size": PAGE, "fields": "all", "include": "id,predictions_model_versions",
                  "query": json.dumps(query)}  # fmt: skip
        ids: set[int] = set()
        for page in count(1):
            rows = self._page({**params, "page": page})
            ids |= {number for row in rows if (number := _predicted(row, version))}
            if len(rows) < PAGE:
                break
        return ids

    def delete_predictions(self, project: int, version: str) -> int:
        """Remove a retired version's predictions; everybody's `next` waits meanwhile, so keep them few."""
        body = {"model_version": version}
        answer = self._call("DELETE", f"api/projects/{project}/model-versions/", json=body)
        return _count(answer, "deleted_predictions")

    # --- wiring

    def add_backend(self, project: int, url: str, *, title: str, user: str, password: str) -> dict[str, Any]:
        """Connect an ML backend with basic auth; Label Studio calls its /health and /setup at once."""
        return dict(self._call("POST", "api/ml/", json={
            "project": project, "url": url, "title": title, "auth_method": "BASIC_AUTH", "basic_auth_user": user,
            "basic_auth_pass": password, "is_interactive": False, "timeout": 100}))  # fmt: skip

    def add_storage(self, project: int, **fields: Any) -> dict[str, Any]:
        """Connect an S3 source storage."""
        return dict(self._call("POST", "api/storages/s3/", json={"project": project, **fields}))

    def sync_storage(self, storage: int) -> bool:
        """Turn new objects into tasks; False where Label Studio has queued that. StudioError where it failed."""
        answer = self._call("POST", f"api/storages/s3/{storage}/sync", timeout_s=STORAGE_SYNC_S)
        status = str(answer.get("status") or "") if isinstance(answer, dict) else ""
        if status == "failed":
            lines = str(answer.get("traceback") or "").strip().splitlines() or ["it does not say why"]
            raise StudioError(f"Label Studio's sync of storage {storage} failed: {lines[-1]}")
        return status not in {"queued", "in_progress"}

    # --- what a person does

    def next_task(self, project: int, schema: LabelSchema) -> NextTask | None:
        """The task that Label Studio serves next to this account, or None where the queue is empty."""
        try:
            return _next(self._call("GET", f"api/projects/{project}/next"), schema)
        except StudioError as error:
            if error.status == 404:
                return None
            raise

    def annotate(
        self, task: int, result: Sequence[Mapping[str, Any]], *, lead_time_s: float = 0.0,
        prediction: int | None = None, skip: bool = False,
    ) -> int:  # fmt: skip
        """Submit (or skip) as the web page does; returns the annotation's id."""
        body: dict[str, Any] = {"result": list(result), "lead_time": lead_time_s, "parent_prediction": prediction}
        if skip:
            body["was_cancelled"] = True
        return _count(self._call("POST", f"api/tasks/{task}/annotations/", json=body), "id")

    def change_annotation(self, annotation: int, result: Sequence[Mapping[str, Any]]) -> None:
        """Replace an annotation's result."""
        self._call("PATCH", f"api/annotations/{annotation}/", json={"result": list(result)})

    def delete_annotation(self, annotation: int) -> None:
        """Delete an annotation."""
        self._call("DELETE", f"api/annotations/{annotation}/")

    def delete_empty(self, task: int, answer: Annotation) -> bool:
        """See `labelloop.studio.empties`."""
        return delete_empty(self.http, task, answer)

    def delete_task(self, task: int) -> None:
        """Delete a task with its annotations."""
        self._call("DELETE", f"api/tasks/{task}/")

    def import_tasks(self, project: int, rows: Sequence[Mapping[str, Any]]) -> int:
        """Import tasks, with annotations where the rows hold some."""
        return _count(self._call("POST", f"api/projects/{project}/import", json=list(rows)), "task_count")

    def export(self, project: int) -> list[dict[str, Any]]:
        """Label Studio's own export of the annotated tasks: what exactness is judged by."""
        return list(self._call("GET", f"api/projects/{project}/export", params={"exportType": "JSON"}))

    def image(self, task: int, uri: str) -> bytes:
        """An image as a browser gets it through Label Studio; empty where it sends the browser to S3 itself."""
        name = base64.urlsafe_b64encode(uri.encode()).decode()
        return self.http.answer("GET", f"tasks/{task}/resolve/", params={"fileuri": name}).content


def _project(data: object) -> StudioProject:
    row = data if isinstance(data, Mapping) else {}
    number, created = whole(row.get("id")), moment(row.get("created_at"))
    if number is None or created == NEVER:
        raise StudioError("Label Studio answered without `id` and `created_at` where a project was asked for")
    return StudioProject(
        id=number, title=text(row.get("title")), created=int(parse(created).timestamp()),
        label_config=text(row.get("label_config")), model_version=text(row.get("model_version")) or None,
        sampling=text(row.get("sampling")), maximum_annotations=whole(row.get("maximum_annotations")) or 1,
        trains_on_submit=bool(row.get("start_training_on_annotation_update")),
        predicts_by_itself=bool(row.get("evaluate_predictions_automatically")),
        shows_predictions=bool(row.get("show_collab_predictions", True)),
    )  # fmt: skip


def task_link(studio_url: str, project: int, task: int) -> str:
    """Where a person sees one task. Never the bare `?labeling=1`: it opens in id order, without locks."""
    return f"{studio_url.rstrip('/')}/projects/{project}/data?task={task}"


def _count(answer: object, name: str) -> int:
    """A number that an answer must hold."""
    value = answer.get(name) if isinstance(answer, Mapping) else None
    if isinstance(value, int) and value >= 0:
        return value
    raise StudioError(f"Label Studio answered {kind(answer)} without the number `{name}`: is it a release we know?")


def _between(ids: tuple[int, int]) -> dict[str, str]:
    """The filter of the Data Manager for a range of task ids."""
    value = {"min": ids[0], "max": ids[1]}
    item = {"filter": "filter:tasks:id", "operator": "in", "type": "Number", "value": value}
    return {"query": json.dumps({"filters": {"conjunction": "and", "items": [item]}, "ordering": ["tasks:id"]})}


CUT_OFF = 500  # characters that the data manager shows of a list


def _predicted(row: object, version: str) -> int | None:
    """The task of a row that lists this version among its predictions."""
    listed = text(row.get("predictions_model_versions")) if isinstance(row, Mapping) else ""
    return number_of(row) if _names(listed, version) else None


def _names(versions: str, version: str) -> bool:
    """True where a list of versions, as the data manager shows it, has this one: the filter finds v10 for v1, too."""
    return version in versions.replace(" ", "").split(",") or len(versions) >= CUT_OFF


def _prediction(task: int, choice: QueuePlace, schema: LabelSchema, version: str) -> dict[str, Any]:
    shown = choice.label is not None and not choice.blind
    result = schema.result(choice.label, choice.probability) if shown and choice.label is not None else []
    return {"task": task, "result": result, "score": choice.priority, "model_version": version}


def _next(data: object, schema: LabelSchema) -> NextTask:
    row = data if isinstance(data, Mapping) else {}
    number, newest = whole(row.get("id")), newest_of(row.get("predictions"))
    if number is None:
        raise StudioError(f"Label Studio's next task came as {kind(data)} without a number that can be read")
    prediction = whole(newest.get("id")) if newest else None
    return NextTask(number, raw_uri(schema.uri(row.get("data"))), prediction, seen_of(newest, schema))


def _just_before(moment: str) -> str:
    """One microsecond earlier: rows that share the last time of a page are read again, not lost."""
    return (parse(moment) - timedelta(microseconds=1)).strftime(LABEL_STUDIO_FORMAT)
