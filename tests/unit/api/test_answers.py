"""What the API answers, does and writes down; and every error is a problem."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.door import CALLS, LANES, ApiDoor
from labelloop.errors import QueueError, StorageError
from labelloop.records.api_keys import Scope
from labelloop.records.json import digest
from labelloop.records.versions import BackboneRecord
from labelloop.web.classify_types import MAX_BODY
from ml_backend.entrance.door import CLASSIFIES, VIEWS
from tests.unit.worlds.front import PROJECT, Front, front
from tests.unit.worlds.operations import OpsWorld


@pytest.fixture
def door() -> Front:
    return front(with_versions())


def with_versions() -> OpsWorld:
    ops = OpsWorld()
    ops.registry.add_backbone(BackboneRecord("b", "pixels", {}, {}, 2, digest(b""), "made up"), b"")
    for number in (1, 2, 3):
        version = ops.version("s")
        assert version.number == number
        if number < 3:
            ops.deploy(version)
    return ops


def problem(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.mimetype == "application/problem+json"
    assert ("Retry-After" in answer.headers) is (status in {429, 503})
    return str(answer.get_json()["detail"])


def test_models_newest_first_with_the_champion(door: Front) -> None:
    body = door.ask("GET", f"/v1/models?project={PROJECT}&limit=2", door.key()).get_json()
    assert body["champion"] == "v2"
    assert [(m["name"], m["state"] == "live") for m in body["models"]] == [("v3", False), ("v2", True)]


def test_status_is_what_the_command_line_shows_although_redis_is_away(door: Front) -> None:
    body = door.ask("GET", f"/v1/projects/{PROJECT}/status", door.key()).get_json()
    assert (body["project"]["key"], body["project"]["version"]) == (PROJECT, "v2")
    assert {"name": "s3", "ok": True, "note": "answers"} in body["services"]
    assert not next(s for s in body["services"] if s["name"] == "redis")["ok"]


def test_asking_for_a_retrain_again_changes_nothing(door: Front) -> None:
    key = door.key(Scope.OPERATE)
    first, second = (door.ask("POST", f"/v1/projects/{PROJECT}/retrain", key).get_json() for _ in range(2))
    assert first["new"]
    assert second == {"request": first["request"], "new": False}
    assert len(list(door.ops.store.list("requests/"))) == 1


def test_decisions_go_into_the_log_with_the_key_and_the_reason(door: Front) -> None:
    key = door.key(Scope.APPROVE)
    promoted = door.ask("POST", f"/v1/projects/{PROJECT}/promote", key, json={"version": "v3", "why": "better"})
    assert promoted.get_json() == {"champion": "v3", "previous": "v2", "changed": True, "skipped": [], "note": None}
    again = door.ask("POST", f"/v1/projects/{PROJECT}/promote", key, json={"version": "v3"})
    assert again.get_json()["changed"] is False
    assert "rollback" in problem(door.ask("POST", f"/v1/projects/{PROJECT}/reject", key, json={"version": "v3"}), 409)
    back = door.ask("POST", f"/v1/projects/{PROJECT}/rollback", key, json={"why": "worse"})
    assert back.get_json()["champion"] == "v2"
    refused = door.ask("POST", f"/v1/projects/{PROJECT}/reject", key, json={"version": "v3"})
    assert refused.get_json()["champion"] == "v2"
    log = door.ops.deployment.registry(door.ops.record).decisions()[-3:]
    assert [(e.action, e.why) for e in log] == [("promote", "better"), ("rollback", "worse"), ("reject", "by the API")]
    assert all(e.by == f"test (key {key.split('_')[1]})" for e in log)


def test_each_change_leaves_a_line_and_no_secret(door: Front, capsys: pytest.CaptureFixture[str]) -> None:
    from labelloop.logs import configure_logs

    configure_logs(json=True, service="api")
    key, reader = door.key(Scope.APPROVE), door.key(Scope.READ)
    door.ask("POST", f"/v1/projects/{PROJECT}/promote", key, json={"version": "v3"}, headers={"X-Request-Id": "r-1"})
    door.ask("POST", f"/v1/projects/{PROJECT}/promote", reader, json={"version": "v3"})
    door.ask("POST", f"/v1/projects/{PROJECT}/promote", json={"version": "v3"})  # a stranger leaves none
    door.ask("GET", "/v1/projects", reader)
    written = capsys.readouterr().err
    lines = [line for line in map(json.loads, written.splitlines()) if line["action"] == "audit"]
    assert [(line["what"], line["status"]) for line in lines] == [("promote", 200), ("promote", 403)]
    assert (lines[0]["key"], lines[0]["version"], lines[0]["request_id"]) == (key.split("_")[1], "v3", "r-1")
    assert key.split("_", 2)[2] not in written


@pytest.mark.parametrize(("method", "path", "sent", "status"), [
    ("GET", "/v1/models", {}, 422), ("GET", "/v1/models?project=x", {}, 422),
    ("GET", f"/v1/models?project={PROJECT}&limit=0", {}, 422), ("GET", f"/v1/models?project={PROJECT}&mood=1", {}, 422),
    ("GET", "/v1/models?project=main-9-9", {}, 404), ("GET", "/v1/projects/main-9-9/status", {}, 404),
    ("GET", "/v1/projects/..%2f..%2fkeys/status", {}, 404), ("GET", "/v1/projects/x/status", {}, 422),
    ("GET", "/v1/projects?x=1", {}, 422), ("DELETE", "/v1/projects", {}, 405), ("GET", "/v1/classify", {}, 405),
    ("POST", f"/v1/projects/{PROJECT}/promote", {"json": {}}, 422),
    ("POST", f"/v1/projects/{PROJECT}/promote", {"json": {"version": "../x"}}, 422),
    ("POST", f"/v1/projects/{PROJECT}/promote", {"json": {"version": "v1", "by": "root"}}, 422),
    ("POST", f"/v1/projects/{PROJECT}/promote", {"json": {"version": "v1", "why": "a\nb"}}, 422),
    ("POST", f"/v1/projects/{PROJECT}/promote", {"json": {"version": "v1", "why": "x" * 501}}, 422),
    ("POST", f"/v1/projects/{PROJECT}/promote", {"data": b"version=v1", "content_type": "text/plain"}, 415),
    ("POST", f"/v1/projects/{PROJECT}/promote", {"data": b"[" * 60_000, "content_type": "application/json"}, 400),
    ("POST", f"/v1/projects/{PROJECT}/promote", {"data": b"{", "content_type": "application/json"}, 422),
    ("POST", f"/v1/projects/{PROJECT}/promote", {"json": {"version": "v99"}}, 404),
])  # fmt: skip
def test_what_cannot_be_answered_is_a_problem(
    door: Front, method: str, path: str, sent: dict[str, Any], status: int
) -> None:
    problem(door.ask(method, path, door.key(), **sent), status)


@pytest.mark.parametrize("error", [StorageError("secret place"), QueueError("redis://:secret@x")])
def test_a_server_that_is_away_is_503_and_named_to_nobody(
    door: Front, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def away(*_: object) -> None:
        raise error

    monkeypatch.setattr(door.ops.deployment.projects, "all", away)
    assert "secret" not in problem(door.ask("GET", "/v1/projects", door.key()), 503)


def test_a_fault_of_ours_shows_no_stack(door: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(door.ops.deployment.projects, "all", fail)
    assert "inside" not in problem(door.ask("GET", "/v1/projects", door.key()), 500)


def test_every_answer_is_counted_and_no_path_of_a_stranger_is_a_label(door: Front) -> None:
    api = door.client.application.extensions["labelloop"]
    for path in ("/v1/projects", "/v1/nothing", "/" + "x" * 50):
        door.ask("GET", path, door.key())
    at: ApiDoor = door.client.application.extensions["labelloop-door"]
    for path in ("/v1/classify", "/v1/projects/a/status", "/v1/" + "x" * 50, "/"):
        at.count(path, 401)
    counted = {
        (sample.labels["endpoint"], sample.labels["status"]): sample.value
        for metric in api.metrics.requests.collect() for sample in metric.samples if sample.name.endswith("_total")
    }  # fmt: skip
    assert counted == {
        ("v1.projects", "200"): 1,
        ("unknown", "404"): 2,
        ("v1.classify", "401"): 1,
        ("unknown", "401"): 3,
    }


# --- the document


def test_the_document_is_openapi_3_1_and_names_every_route(door: Front) -> None:
    document = door.ask("GET", "/openapi.json").get_json()
    assert document["openapi"].startswith("3.1")
    rules = door.client.application.url_map.iter_rules()
    written = {r.rule.replace("<", "{").replace(">", "}") for r in rules if r.rule.startswith("/v1/")}
    assert set(document["paths"]) == written
    for path, methods in document["paths"].items():
        for name, operation in methods.items():
            assert operation["security"] == [{"key": []}], path
            assert {"400", "401", "403", "422", "429", "503"} <= set(operation["responses"]), path
            problems = [r for status, r in operation["responses"].items() if status >= "400"]
            assert all(list(r["content"]) == ["application/problem+json"] for r in problems), (path, name)
    text = json.dumps(document)
    names = set(document["components"]["schemas"])
    assert {ref.split('"')[0] for ref in text.split("#/components/schemas/")[1:]} <= names
    body = document["paths"]["/v1/classify"]["post"]["requestBody"]["content"]
    assert set(body) == {"multipart/form-data", "application/json"}


def test_the_page_loads_nothing_from_elsewhere(door: Front) -> None:
    page = door.ask("GET", "/docs")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "'unsafe-eval'" not in page.headers["Content-Security-Policy"]
    assert "http" not in page.text.replace("http-equiv", "")
    assert "<script>" not in page.text


# --- the door


def refused(door: Front, path: str, headers: dict[str, str], length: int = 0) -> Any:
    at: ApiDoor = door.client.application.extensions["labelloop-door"]
    why = at.refusal(path, headers, length)
    return why and at.worded(why, path, headers)


def test_bodies_and_strangers_are_refused_from_the_head_alone(door: Front) -> None:
    key = {"AUTHORIZATION": f"Bearer {door.key()}", "HOST": "api.example.com"}
    assert refused(door, "/v1/classify", key, MAX_BODY) is None
    assert refused(door, "/v1/classify", key, MAX_BODY + 1).status == 413
    assert refused(door, f"/v1/projects/{PROJECT}/promote", key, 100_000).status == 413
    assert refused(door, "/docs", {}, 100_000).status == 413
    assert refused(door, "/docs", {}) is None
    assert refused(door, "/v1/projects", {}).status == 401
    _, headers, body = refused(door, "/v1/projects", {"X_REQUEST_ID": "r-1"}).to_response()
    assert dict(headers)["Content-Type"] == "application/problem+json"
    assert json.loads(body)["request_id"] == "r-1"
    at: ApiDoor = door.client.application.extensions["labelloop-door"]
    assert [at.lane_of(p) for p in ("/v1/classify", "/v1/models", "/docs", "/health")] == [
        CLASSIFIES,
        CALLS,
        VIEWS,
        VIEWS,
    ]
    assert {lane.name for lane in LANES} == set(at.budgets)


@pytest.mark.parametrize(("headers", "status"), [
    ({"ORIGIN": "http://evil.example"}, 403), ({"ORIGIN": "null"}, 403), ({"SEC_FETCH_SITE": "cross-site"}, 403),
    ({"ORIGIN": "https://api.example.com", "SEC_FETCH_SITE": "same-origin"}, None),  # its own page of documents
    ({"SEC_FETCH_SITE": "cross-site", "SEC_FETCH_MODE": "navigate", "SEC_FETCH_DEST": "document"}, None),  # a link
])  # fmt: skip
def test_pages_of_others_are_refused(door: Front, headers: dict[str, str], status: int | None) -> None:
    key = {"AUTHORIZATION": f"Bearer {door.key()}", "HOST": "api.example.com"}
    why = refused(door, "/v1/classify", {**key, **headers})
    assert (why.status if why else None) == status
