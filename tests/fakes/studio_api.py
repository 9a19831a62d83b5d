"""Label Studio's HTTP answers, as far as a whole project is read or made: in memory, behind the real `Studio`."""

from __future__ import annotations

import json as _json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from labelloop.clock import LABEL_STUDIO_FORMAT, parse
from labelloop.errors import StudioError
from labelloop.studio.client import Studio

Json = dict[str, Any]


@dataclass
class StudioApi:
    """Projects, tasks, annotations. ``images``: what a storage finds when it is synced.

    A task's counters stay at 0: the real ones are not always right either.
    """

    images: Sequence[str] = ()
    users: dict[int, str] = field(default_factory=lambda: {1: "owner@example.com"})
    projects: dict[int, Json] = field(default_factory=dict)
    rows: dict[int, Json] = field(default_factory=dict)  # tasks
    storages: dict[int, Json] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)  # every request
    hotkeys: Json = field(default_factory=dict)
    fail_after: int = 10**9  # answers that are taken before it breaks down
    _ids: int = 0
    _clock: datetime = datetime(2030, 1, 1, tzinfo=UTC)

    def call(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: Any = None,
        timeout_s: float | None = None,
    ) -> Any:  # fmt: skip
        """As `StudioHttp.call`. Like the real one it keeps lone surrogates, and breaks where it has to send them."""
        del timeout_s
        parts = [int(p) if p.isdigit() else p for p in path.strip("/").split("/")[1:]]
        self.asked.append((method, path))
        answer = self._route(method, parts, dict(params or {}), json)
        try:
            sent = _json.dumps(answer, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise StudioError(f"Label Studio answered 500 to {method} /{path}", status=500) from error
        return _json.loads(sent)

    def call_once(self, path: str, params: Mapping[str, Any]) -> Any:
        """As `StudioHttp.call_once`."""
        return self.call("GET", path, params=params)

    def _route(self, method: str, parts: list[Any], params: Json, body: Any) -> Any:  # noqa: PLR0911
        match (method, *parts):
            case ("GET", "version"):
                return {"release": "1.23.2"}
            case (_, "current-user", what):
                return self._me(what, body)
            case ("GET", "users"):
                return [{"id": i, "email": email} for i, email in self.users.items()]
            case ("POST", "projects"):
                return self.project(**body)
            case ("GET", "projects", project):
                return self._known(self.projects, project)
            case ("PATCH", "projects", project):
                return self._known(self.projects, project) | (self.projects[project].update(body) or {})
            case ("DELETE", "projects", project):
                del self.projects[project]
                self.rows = {i: row for i, row in self.rows.items() if row["project"] != project}
                return {}
            case ("GET", "projects", project, "export"):
                return [self.rows[i] for i in params["ids[]"] if i in self.rows and self.rows[i]["project"] == project]
            case ("POST", "projects", project, "import"):
                for row in body:
                    task = self.task(project, row["data"], row["meta"])
                    for annotation in row["annotations"]:
                        self.annotate(task, **annotation)
                return {"task_count": len(body)}
            case _:
                return self._more(method, parts, params, body)

    def _me(self, what: str, body: Any) -> Any:
        if what == "whoami":
            return {"email": self.users[1]}
        self.hotkeys = body["custom_hotkeys"] if body else self.hotkeys
        return {"custom_hotkeys": self.hotkeys}

    def _more(self, method: str, parts: list[Any], params: Json, body: Any) -> Any:  # noqa: PLR0911
        match (method, *parts):
            case ("GET", "tasks"):
                return self._page(params)
            case ("GET", "annotations", annotation):
                answers = {a["id"]: a for row in self.rows.values() for a in row["annotations"]}
                return self._known(answers, annotation)
            case ("PATCH", "tasks", task):
                return self.rows[task] | (self.rows[task].update(body) or {})
            case ("DELETE", "tasks", task):
                del self.rows[task]
                return {}
            case ("POST", "tasks", task, "annotations"):
                return self.annotate(task, **body)
            case ("GET", "ml" | "webhooks"):
                return []
            case ("POST", "ml"):
                return {"id": 1, **body}
            case ("GET", "storages", "s3"):
                return [s for s in self.storages.values() if s["project"] == params["project"]]
            case ("POST", "storages", "s3"):
                number = self._next()
                self.storages[number] = {"id": number, "status": "completed", **body}
                return self.storages[number]
            case ("PATCH", "storages", "s3", storage):
                self._known(self.storages, storage).update(body)
                return self.storages[storage]
            case ("POST", "storages", "s3", storage, "sync"):
                for uri in self.images:
                    self.task(self.storages[storage]["project"], {"image": uri})
                return self.storages[storage]
        raise StudioError(f"no fake of {method} {parts}", status=404)

    # --- what tests prepare

    def project(self, title: str, label_config: str, **more: Any) -> Json:
        number = self._next()
        self.projects[number] = {
            "id": number, "title": title, "label_config": label_config, "created_at": self._now(), "description": "",
            "maximum_annotations": 1, "sampling": "Uncertainty sampling", **more,
        }  # fmt: skip
        return self.projects[number]

    def task(self, project: int, data: Mapping[str, Any], meta: Mapping[str, Any] | None = None) -> int:
        number = self._next()
        self.rows[number] = {
            "id": number, "project": project, "data": dict(data), "meta": dict(meta or {}), "updated_at": self._now(),
            "annotations": [], "total_annotations": 0, "cancelled_annotations": 0,
        }  # fmt: skip
        return number

    def annotate(self, task: int, *, completed_by: int = 1, was_cancelled: bool = False, **more: Any) -> Json:
        if self.fail_after <= 0:
            raise StudioError("Label Studio answered 500", status=500)
        self.fail_after -= 1
        moment, row = self._now(), self.rows[task]
        answer = {"id": self._next(), "created_at": moment, "updated_at": moment, "completed_by": completed_by,
                "was_cancelled": was_cancelled, **more}  # fmt: skip
        row["annotations"].append(answer)
        row["updated_at"] = moment
        return answer

    def of_project(self, project: int) -> list[Json]:
        return [row for row in self.rows.values() if row["project"] == project]

    # ---

    def _page(self, params: Json) -> Json:
        rows = self.of_project(int(params["project"]))
        total = len(rows)
        query = _json.loads(params.get("query", "{}"))
        if "selectedItems" in query:
            rows = [r for r in rows if r["id"] in query["selectedItems"]["included"]]
        elif query:
            rows = _filtered(rows, query["filters"]["items"][0])
        start = (int(params.get("page", 1)) - 1) * int(params["page_size"])
        rows = rows[start : start + int(params["page_size"])]
        return {"total": total, "tasks": [_shown(row, params.get("include", "").split(",")) for row in rows]}

    def _known(self, table: dict[int, Json], number: int) -> Json:
        if number not in table:
            raise StudioError("not found", status=404)
        return table[number]

    def _next(self) -> int:
        self._ids += 1
        return self._ids

    def _now(self) -> str:
        self._clock += timedelta(seconds=1)
        return self._clock.strftime(LABEL_STUDIO_FORMAT)


def _filtered(rows: list[Json], item: Json) -> list[Json]:
    if item["filter"] == "filter:tasks:id":
        return sorted((r for r in rows if r["id"] > item["value"]), key=lambda r: r["id"])
    since = parse(item["value"])
    return sorted((r for r in rows if parse(r["updated_at"]) > since), key=lambda r: r["updated_at"])


def _shown(row: Json, include: Sequence[str]) -> Json:
    """Of answers the data manager shows that they are there, and when they were changed."""
    shown = {name: value for name, value in row.items() if name in include}
    if "annotations" in shown:
        shown["annotations"] = [{"id": a["id"], "updated_at": a["updated_at"]} for a in row["annotations"]]
    return shown


def studio_of(api: StudioApi) -> Studio:
    """The real client, which talks to the fake."""
    studio = Studio("http://studio", "token")
    studio.close()
    studio.http = api  # type: ignore[assignment]
    studio._call = api.call
    return studio
