"""What Label Studio says of its own wiring: backends, webhooks, storages and what it would refuse. Frozen records out.

Nothing here changes anything a person sees; what writes says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labelloop.errors import StudioError
from labelloop.labels.instruction import with_enter
from labelloop.studio.http import StudioHttp

BLOCKED = "reserved network address"
QUICK_IMPORT = "fflag_fix_back_4620_memory_efficient_predictions_import_08012025_short"


@dataclass(frozen=True, slots=True)
class ConnectedBackend:
    """An ML backend of a project, asked by Label Studio a moment ago."""

    id: int
    url: str
    title: str
    connected: bool
    error: str
    authenticates: bool  # with basic auth


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook that is called for a project's events; without a project it is the whole organisation's."""

    id: int
    url: str
    project: int | None
    active: bool
    payload: bool
    all_events: bool


@dataclass(frozen=True, slots=True)
class SourceStorage:
    """An S3 source storage."""

    id: int
    bucket: str
    prefix: str
    endpoint: str | None
    presigned: bool  # the browser is sent to S3 itself
    status: str  # of the last sync
    trouble: str  # the last line of its error
    pattern: str = ""  # which keys it takes


class StudioWiring:
    """One server. Every method may raise StudioError."""

    def __init__(self, http: StudioHttp) -> None:
        self._http = http

    def backends(self, project: int) -> list[ConnectedBackend]:
        """Of one project. Label Studio asks each for /health and /setup before it answers."""
        return [_backend(data) for data in self._http.call("GET", "api/ml/", params={"project": project})]

    def webhooks(self, project: int) -> list[Webhook]:
        """Those that a project's events go to: its own and the organisation's."""
        hooks = [_webhook(data) for data in self._http.call("GET", "api/webhooks/")]
        return [hook for hook in hooks if hook.project in {None, project}]

    def storages(self, project: int) -> list[SourceStorage]:
        """S3 source storages of one project."""
        return [_storage(data) for data in self._http.call("GET", "api/storages/s3/", params={"project": project})]

    def trouble_with_s3(self, project: int, fields: Mapping[str, Any]) -> str:
        """What Label Studio says when it tries an S3 connection; empty where it works. Keeps nothing."""
        body = {"project": project, **fields}
        try:
            self._http.call("POST", "api/storages/s3/validate", json=body)
        except StudioError as error:
            if error.status not in {400, 403, 500}:
                raise
            return str(error)
        return ""

    def blocks(self, project: int, url: str) -> bool:
        """True where Label Studio refuses to call this address because it is private. Keeps nothing."""
        fields = {"bucket": "labelloop-doctor", "s3_endpoint": url, "aws_access_key_id": "x",
                  "aws_secret_access_key": "x", "region_name": "us-east-1"}  # fmt: skip
        return BLOCKED in self.trouble_with_s3(project, fields)

    def invitation(self, studio_link: str) -> str:
        """Where people sign up; all of them get the same address. ``studio_link``: as they open Label Studio."""
        answer = self._http.call("GET", "api/invite")
        path = answer.get("invite_url") if isinstance(answer, Mapping) else None
        if not isinstance(path, str) or not path:
            raise StudioError("Label Studio answered without `invite_url` where the invitation was asked for")
        return f"{studio_link}{path}" if path.startswith("/") else path

    def submit_with_enter(self) -> bool:
        """Write: let Enter submit for our account, unless they chose a key themselves; True where that was changed."""
        mine = self._http.call("GET", "api/current-user/hotkeys/").get("custom_hotkeys")
        hotkeys = with_enter(mine if isinstance(mine, Mapping) else {})
        if hotkeys is not None:
            self._http.call("PATCH", "api/current-user/hotkeys/", json={"custom_hotkeys": hotkeys})
        return hotkeys is not None

    def imports_quickly(self, project: int) -> bool | None:
        """Whether the memory-efficient import is on; None where the answer is not understood.

        Seen by the words in which it refuses a prediction for task 0, which exists nowhere: nothing is stored.
        """
        row = {"task": 0, "result": [], "score": 0.5, "model_version": "labelloop-doctor"}
        try:
            self._http.call("POST", f"api/projects/{project}/import/predictions", json=[row])
        except StudioError as error:
            message = str(error)
            if "field: task ID 0" in message:
                return True
            return False if "Invalid task ID 0" in message or "field: corresponding task" in message else None
        return None

    def replace_storage_keys(self, storage: int, fields: Mapping[str, Any]) -> None:
        """Write: hand a source storage the keys that are used from now on. Label Studio tries them first."""
        self._http.call("PATCH", f"api/storages/s3/{storage}", json=dict(fields))

    def replace_backend_password(self, backend: ConnectedBackend, project: int, user: str, password: str) -> None:
        """Write: hand over the basic auth that is used from now on. Label Studio tries it first."""
        self._http.call("PATCH", f"api/ml/{backend.id}", json={
            "project": project, "url": backend.url, "auth_method": "BASIC_AUTH", "basic_auth_user": user,
            "basic_auth_pass": password})  # fmt: skip


def _backend(data: Mapping[str, Any]) -> ConnectedBackend:
    return ConnectedBackend(
        int(data["id"]), str(data["url"]).rstrip("/"), str(data.get("title") or ""), data.get("state") == "CO",
        str(data.get("error_message") or ""), data.get("auth_method") == "BASIC_AUTH",
    )  # fmt: skip


def _webhook(data: Mapping[str, Any]) -> Webhook:
    return Webhook(
        int(data["id"]), str(data["url"]).rstrip("/"), data.get("project"), bool(data.get("is_active", True)),
        bool(data.get("send_payload", True)), bool(data.get("send_for_all_actions", True)),
    )  # fmt: skip


def _storage(data: Mapping[str, Any]) -> SourceStorage:
    failed = data.get("status") == "failed"  # the error of an earlier try stays with a storage that works again
    lines = str(data.get("traceback") or "").strip().splitlines() if failed else []
    return SourceStorage(
        int(data["id"]), str(data["bucket"]), str(data.get("prefix") or "").rstrip("/"), data.get("s3_endpoint"),
        bool(data.get("presign")), str(data.get("status") or ""), lines[-1] if lines else "",
        str(data.get("regex_filter") or ""),
    )  # fmt: skip
