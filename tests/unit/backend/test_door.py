"""What is decided from a request's head alone."""

from __future__ import annotations

import base64
import json

import pytest

from labelloop.config.settings import load_settings
from ml_backend.auth import AccessGate
from ml_backend.entrance.door import HINTS, LANE_OF, MAX_BODY, PREDICTS, VIEWS, BodyBudget, Door, lane_of, too_large

GOOD = {"AUTHORIZATION": "Basic " + base64.b64encode(b"labelloop:letmein").decode()}
DOOR = Door(AccessGate(load_settings({"LABELLOOP_BACKEND_PASSWORD": "letmein"})))


@pytest.mark.parametrize(
    "path", ["/predict", "/setup", "/versions", "/metrics", "/", "/nothing", "//health", "/health/"]
)
@pytest.mark.parametrize("header", ["", "Basic", "Basic x", "Bearer letmein", "Basic bGFiZWxsb29wOng=", "\x00", "é"])
def test_a_stranger_goes_no_further(path: str, header: str) -> None:
    why = DOOR.refusal(path, {"AUTHORIZATION": header} if header else {}, 0)
    assert why is not None
    status, headers, body = why.to_response()
    assert status.startswith("401 labelloop: wrong or missing")
    assert ("WWW-Authenticate", 'Basic realm="labelloop"') in headers
    assert "password" in json.loads(body)["error"]


@pytest.mark.parametrize("path", ["/predict", "/", "/nothing", "/health", "/webhook"])
@pytest.mark.parametrize("mark", [{"ORIGIN": "http://elsewhere"}, {"ORIGIN": "null"}, {"SEC_FETCH_SITE": "cross-site"}])
def test_a_web_page_is_refused_before_its_browser_would_ask_for_a_password(path: str, mark: dict[str, str]) -> None:
    for credentials in ({}, GOOD):
        why = DOOR.refusal(path, {**credentials, **mark}, 0)
        assert why is not None
        status, headers, _ = why.to_response()
        assert status.startswith("403 ")
        assert "WWW-Authenticate" not in dict(headers)


@pytest.mark.parametrize("path", ["/health", "/ready", "/webhook"])
def test_what_label_studio_cannot_authenticate_is_open(path: str) -> None:
    assert DOOR.refusal(path, {}, 0) is None


@pytest.mark.parametrize(("path", "limit"), [(path, lane.max_body) for path, lane in LANE_OF.items()])
def test_each_kind_has_a_size_of_its_own(path: str, limit: int) -> None:
    assert DOOR.refusal(path, GOOD, limit) is None
    why = DOOR.refusal(path, GOOD, limit + 1)
    assert why is not None
    assert why.status == 413


def test_what_is_not_there_is_answered_where_nothing_can_hang() -> None:
    assert lane_of("/nothing") is VIEWS
    assert lane_of("/predict") is PREDICTS
    assert PREDICTS.max_body == MAX_BODY
    assert too_large(HINTS, HINTS.max_body) is None


def test_a_budget_is_one_for_all() -> None:
    budget = BodyBudget(10)
    assert budget.take(6)
    assert not budget.take(5)
    assert budget.take(4)
    budget.give_back(6)
    assert budget.take(5)
