"""Rows of a project in, whatever of them Label Studio can give out: one task that it cannot costs itself alone.

Label Studio keeps halves of characters (lone surrogates) that people and scripts send, and then answers 500 to every
request whose answer would hold them: a page of a thousand tasks, an export of a hundred. Such an answer is asked for
in halves until what is left is one task, and of that task answer by answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import structlog

from labelloop.errors import StudioError
from labelloop.labels.results import kind
from labelloop.studio.rows import NOBODY, UNREADABLE, number_of

CHUNK = 100  # ids per request: the URL stays short
FAILURES = 200  # within one chunk
BROKEN = {500, 200}  # its own failure, or an answer that is no JSON
BARE = "id,updated_at,annotations,total_annotations,cancelled_annotations"  # nothing that people wrote
NO_DATA = "Label Studio cannot give out the task's data (it answers 500): delete the task and import it again"
NO_ANSWER = (
    "Label Studio cannot give out the answer (it answers 500; it may hold broken characters): delete the task, or "
    "correct it in Label Studio's database"
)
Row = dict[str, Any]
Read = Callable[[Sequence[int]], list[Any]]

log = structlog.get_logger()


class PiecesHttp(Protocol):
    """`StudioHttp`, or a fake."""

    def call(self, method: str, path: str, *, params: Mapping[str, Any] | None = None) -> Any:
        """The JSON of an answer; what fails is tried again."""

    def call_once(self, path: str, params: Mapping[str, Any]) -> Any:
        """The JSON of an answer to GET; what fails is not tried again."""


class Pieces:
    """Reads rows whole where it can. Every method may raise StudioError."""

    def __init__(self, http: PiecesHttp) -> None:
        self._http = http

    def page(self, params: Mapping[str, Any]) -> list[Any]:
        """Tasks of one page of the data manager. Where the data of one cannot be had, its row says why."""
        try:
            return rows_of(self._http.call("GET", "api/tasks/", params=params))
        except StudioError as error:
            if error.status not in BROKEN or "data" not in str(params["include"]).split(","):
                raise
        rows = rows_of(self._http.call("GET", "api/tasks/", params={**params, "include": BARE}))
        written = {_id(row): row for row in self._written(params, list(filter(None, map(_id, rows))))}
        return [{**row, **written.get(_id(row), {})} if isinstance(row, Mapping) else row for row in rows]

    def export(self, project: int, ids: Sequence[int]) -> list[Any]:
        """Tasks with all annotations in full; deleted ones are absent. What cannot be had says why."""
        rows: list[Any] = []
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            try:
                rows += _listed(self._http.call("GET", f"api/projects/{project}/export", params=_exported(chunk)))
            except StudioError as error:
                if error.status not in BROKEN:
                    raise
                rows += self._export_in_halves(project, chunk)
        return rows

    def _export_in_halves(self, project: int, ids: Sequence[int]) -> list[Any]:
        def read(part: Sequence[int]) -> list[Any]:
            return _listed(self._http.call_once(f"api/projects/{project}/export", _exported(part)))

        read([NOBODY])  # the server is well, apart from these tasks; else nothing is said of them
        return _in_halves(ids, read, lambda task: self._piecewise(project, task))

    def _piecewise(self, project: int, task: int) -> list[Any]:
        """One task that cannot be exported: its data and each of its answers for themselves."""
        params = {"project": project, "page_size": 1, "page": 1, "fields": "all", "resolve_uri": "false"}
        chosen = {**params, "query": _chosen([task])}
        rows = rows_of(self._http.call_once("api/tasks/", {**chosen, "include": BARE}))
        written = {_id(row): row for row in self._written({**params, "include": "id,data,meta"}, [task])}
        return [
            {**row, **written.get(task, {}), "annotations": self._answers(row.get("annotations"))}
            for row in rows if isinstance(row, Mapping)
        ]  # fmt: skip

    def _answers(self, stubs: object) -> list[Any]:
        readable = [stub for stub in stubs if isinstance(stub, Mapping)] if isinstance(stubs, list) else []
        return [answer for stub in readable for answer in self._answer(dict(stub))]

    def _answer(self, stub: Row) -> list[Any]:
        try:
            return [self._http.call_once(f"api/annotations/{_id(stub)}/", {})]
        except StudioError as error:
            if error.status == 404:
                return []
            if error.status not in BROKEN:
                raise
        return [{**stub, UNREADABLE: NO_ANSWER}]

    def _written(self, params: Mapping[str, Any], ids: Sequence[int]) -> list[Row]:
        """What people wrote into tasks, by id."""
        kept = {name: value for name, value in params.items() if name not in {"page", "page_size"}}

        def read(part: Sequence[int]) -> list[Any]:
            query = {**kept, "page": 1, "page_size": CHUNK, "query": _chosen(part)}
            return [row for row in rows_of(self._http.call_once("api/tasks/", query)) if _id(row)]

        rows: list[Row] = []
        for start in range(0, len(ids), CHUNK):
            rows += _in_halves(ids[start : start + CHUNK], read, lambda task: [{"id": task, UNREADABLE: NO_DATA}])
        return rows


def rows_of(answer: object) -> list[Any]:
    """The tasks of a page; StudioError where it is none."""
    if isinstance(answer, Mapping) and isinstance(answer.get("tasks"), list):
        return list(answer["tasks"])
    raise StudioError(f"Label Studio answered {kind(answer)} without `tasks` where a page of tasks was asked for")


def _listed(answer: object) -> list[Any]:
    if isinstance(answer, list):
        return answer
    raise StudioError(f"Label Studio answered {kind(answer)} where an export, a list, was asked for")


def _in_halves(ids: Sequence[int], read: Read, lone: Callable[[int], list[Any]]) -> list[Any]:
    """What ``read`` gives of ids, all together or in ever smaller parts; ``lone`` of those that it fails of alone.

    After many failures the rest is left out: it counts as not read yet, and is read another time.
    """
    waiting, failures = [ids], 0
    rows: list[Any] = []
    while waiting and failures < FAILURES:
        part = waiting.pop()
        try:
            rows += read(part)
        except StudioError as error:
            if error.status not in BROKEN:
                raise
            failures += 1
            middle = len(part) // 2
            if middle:
                waiting += [part[middle:], part[:middle]]
            else:
                log.warning("Label Studio cannot give out a task", action="read", task=part[0], reason=str(error)[:200])
                rows += lone(part[0])
    return rows


def _exported(ids: Sequence[int]) -> Row:
    return {"exportType": "JSON", "download_all_tasks": "true", "ids[]": list(ids)}


def _chosen(ids: Sequence[int]) -> str:
    """The data manager's query for these tasks."""
    return json.dumps({"selectedItems": {"all": False, "included": list(ids)}})


def _id(row: object) -> int:
    return number_of(row) or NOBODY
