"""Every route against every kind of key: a table, and none is left out."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api import edges
from api.edges import OPEN, SCOPES
from labelloop.clock import LABEL_STUDIO_FORMAT
from labelloop.objects.formats import Kind, write
from labelloop.records.api_keys import Scope
from labelloop.rules.api_keys import parts_of
from tests.unit.worlds.front import PROJECT, Front, front

OTHER = "main-2-0"
ROUTES = {  # endpoint -> (method, path, body, statuses of a key that may)
    "v1.projects": ("GET", "/v1/projects", None, {200}),
    "v1.models": ("GET", f"/v1/models?project={PROJECT}", None, {200}),
    "v1.status": ("GET", f"/v1/projects/{PROJECT}/status", None, {200}),
    "v1.classify": ("POST", "/v1/classify", {}, {503}),  # no backend runs here
    "v1.retrain": ("POST", f"/v1/projects/{PROJECT}/retrain", None, {202}),
    "v1.promote": ("POST", f"/v1/projects/{PROJECT}/promote", {"version": "v1"}, {404}),  # there is none
    "v1.reject": ("POST", f"/v1/projects/{PROJECT}/reject", {"version": "v1"}, {404}),
    "v1.rollback": ("POST", f"/v1/projects/{PROJECT}/rollback", {}, {409}),
}
OF_NO_PROJECT = {"v1.projects", "v1.classify"}  # the first shows a key's own alone, the second asks in the backend


@pytest.fixture
def door() -> Front:
    return front()


def ask(door: Front, endpoint: str, key: str) -> Any:
    method, path, body, _ = ROUTES[endpoint]
    return door.ask(method, path, key, **({"json": body} if body is not None else {}))


def expired(door: Front) -> str:
    whole = door.key()
    key_id, _ = parts_of(whole) or ("", "")
    before = (datetime.now(UTC) - timedelta(seconds=1)).strftime(LABEL_STUDIO_FORMAT)
    name = f"keys/{key_id}.json"
    door.ops.root.put(name, write(Kind.API_KEY, asdict(replace(door.store.get(key_id), expires=before))))
    door.known.read()
    return whole


def revoked(door: Front) -> str:
    whole = door.key()
    door.store.revoke((parts_of(whole) or ("",))[0])
    door.known.read()
    return whole


def rotated(door: Front) -> str:
    whole = door.key()
    door.store.rotate((parts_of(whole) or ("",))[0], keep_hours=0)
    door.known.read()
    return whole


def test_no_route_is_left_out(door: Front) -> None:
    endpoints = {rule.endpoint for rule in door.client.application.url_map.iter_rules()}
    assert endpoints == set(ROUTES) | OPEN
    assert set(SCOPES) == set(ROUTES)


@pytest.mark.parametrize("endpoint", ROUTES)
@pytest.mark.parametrize("kind", [
    "no key", "nonsense", "unknown", "basic", "expired", "revoked", "rotated", "other scopes", "other project", "right",
])  # fmt: skip
def test_every_route_against_every_kind_of_key(door: Front, endpoint: str, kind: str) -> None:
    others = [scope for scope in Scope if scope is not SCOPES[endpoint]]
    keys = {
        "no key": lambda: "", "nonsense": lambda: "x" * 100, "unknown": lambda: "ll_" + "0" * 12 + "_" + "A" * 43,
        "basic": lambda: "", "expired": lambda: expired(door), "revoked": lambda: revoked(door),
        "rotated": lambda: rotated(door), "other scopes": lambda: door.key(*others),
        "other project": lambda: door.key(SCOPES[endpoint], project=OTHER),
        "right": lambda: door.key(SCOPES[endpoint], project=PROJECT),
    }  # fmt: skip
    right = ROUTES[endpoint][3]
    expected = {"other scopes": {403}, "right": right}.get(kind, {401})
    if kind == "other project":
        expected = right if endpoint in OF_NO_PROJECT else {403}
    answer = ask(door, endpoint, keys[kind]())
    assert answer.status_code in expected, answer.text
    assert answer.headers["X-Request-Id"]
    if answer.status_code >= 400:
        assert answer.mimetype == "application/problem+json"
        assert answer.get_json()["request_id"] == answer.headers["X-Request-Id"]
    assert ("WWW-Authenticate" in answer.headers) is (answer.status_code == 401)
    if answer.status_code in {401, 403}:
        assert not list(door.ops.store.list("requests/"))


def test_a_key_of_a_project_sees_its_own_alone(door: Front) -> None:
    assert ask(door, "v1.projects", door.key(Scope.READ, project=OTHER)).get_json() == {"projects": []}
    (row,) = ask(door, "v1.projects", door.key(Scope.READ, project=PROJECT)).get_json()["projects"]
    assert row["key"] == PROJECT


def test_a_route_that_nobody_listed_is_nobodys(door: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(edges.SCOPES, "v1.projects")
    assert ask(door, "v1.projects", door.key()).status_code == 500


@pytest.mark.parametrize(("path", "status"), [
    ("/openapi.json", 200), ("/docs", 200), ("/docs/start.js", 200), ("/docs/css/swagger-ui.css", 200), ("/ready", 200),
    ("/health", 200), ("/", 302), ("/docs/js/../../plugins.py", 404), ("/nothing", 404),
    ("/docs/images/swagger.svg", 404),
    ("/v1/nothing", 404), ("/docs/", 404),
])  # fmt: skip
def test_what_is_open_tells_nothing_of_the_deployment(door: Front, path: str, status: int) -> None:
    answer = door.ask("GET", path)
    assert answer.status_code == status
    assert "pets" not in answer.text
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
