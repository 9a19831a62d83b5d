"""What Label Studio 1.23.2 answers about its wiring, as it was seen, becomes what we need to know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from labelloop.errors import StudioError
from labelloop.labels.instruction import ENTER, SUBMIT
from labelloop.studio.http import StudioHttp
from labelloop.studio.wiring import StudioWiring

HEAD = 'Label Studio answered 400 to POST /x: {"detail":"Validation error","validation_errors":{"non_field_errors":["'
ROW = "{'task': 0, 'result': [], 'score': 0.5, 'model_version': 'labelloop-doctor'}"


class Saying(StudioHttp):
    """Answers every call with one thing."""

    def __init__(self, answer: Any) -> None:
        super().__init__("http://x", "t")
        self.said = answer
        self.bodies: list[Any] = []

    def call(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, json: Any = None,
        timeout_s: float | None = None,
    ) -> Any:  # fmt: skip
        self.bodies.append(json)
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


@pytest.mark.parametrize(
    ("refusal", "quick"),
    [
        (f'{ROW} contains invalid "task" field: task ID 0 not found in project digits', True),
        (f'{ROW} contains invalid "task" field: corresponding task ID ', False),
        ("Prediction 0: Invalid task ID 0 - task not found in project", False),
        ("something new", None),
    ],
)
def test_the_quick_import_is_known_by_how_it_refuses(refusal: str, quick: bool | None) -> None:
    wiring = StudioWiring(Saying(StudioError(HEAD + refusal, status=400)))
    assert wiring.imports_quickly(7) is quick


@pytest.mark.parametrize(
    ("kept", "sent"),
    [
        ({}, {SUBMIT: ENTER}),
        ({"other:key": {"key": "x"}}, {"other:key": {"key": "x"}, SUBMIT: ENTER}),
        ({SUBMIT: {"key": "s"}}, None),  # their own choice
        (None, {SUBMIT: ENTER}),
    ],
)
def test_enter_submits_unless_somebody_chose_another_key(kept: Any, sent: Any) -> None:
    http = Saying({"custom_hotkeys": kept})
    assert StudioWiring(http).submit_with_enter() is (sent is not None)
    assert [body["custom_hotkeys"] for body in http.bodies if body] == ([sent] if sent else [])


BLOCKED = StudioError("URL resolves to a reserved network address (block: 127.0.0.0/8)", status=403)


def test_a_private_address_is_told_from_an_unreachable_one() -> None:
    assert StudioWiring(Saying(BLOCKED)).blocks(7, "http://127.0.0.1:9")
    assert not StudioWiring(Saying(StudioError("answered 500: no answer", status=500))).blocks(7, "http://x:9")
    assert not StudioWiring(Saying({})).blocks(7, "http://x:9")


def test_a_token_that_is_refused_is_no_word_about_s3() -> None:
    with pytest.raises(StudioError):
        StudioWiring(Saying(StudioError("dead", status=401))).trouble_with_s3(7, {})


def test_webhooks_of_the_organisation_count_for_every_project() -> None:
    rows = [{"id": n, "url": f"http://x/{n}/", "project": p} for n, p in ((1, 7), (2, 8), (3, None))]
    hooks = StudioWiring(Saying(rows)).webhooks(7)
    assert [(h.id, h.url) for h in hooks] == [(1, "http://x/1"), (3, "http://x/3")]


def test_the_error_of_a_storage_counts_only_while_it_fails() -> None:
    row = {"id": 1, "bucket": "b", "prefix": "p/", "presign": False, "traceback": "Traceback\n  x\nKeyError: gone"}
    failed, fine = StudioWiring(Saying([{**row, "status": "failed"}, {**row, "status": "completed"}])).storages(7)
    assert failed.trouble == "KeyError: gone"
    assert fine.trouble == ""
    assert fine.prefix == "p"


def test_a_new_password_is_handed_over_without_the_title() -> None:
    http = Saying([{"id": 3, "url": "http://b/", "title": "labelloop", "state": "CO", "auth_method": "BASIC_AUTH"}])
    wiring = StudioWiring(http)
    (backend,) = wiring.backends(7)
    assert backend.connected
    wiring.replace_backend_password(backend, 7, "labelloop", "new")
    assert "title" not in http.bodies[-1], "renaming it would rename the project's model version"
