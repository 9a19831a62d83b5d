"""`labelloop keys`: a key is shown once, and what is typed wrongly makes none."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

import cli.connect
from cli.main import app
from labelloop.config.settings import load_settings
from labelloop.objects.storage import MemoryStore
from labelloop.rules.api_keys import parts_of
from labelloop.store.api_keys import ApiKeyStore

URL = "http://127.0.0.1:9292"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    store = MemoryStore()
    deployment = SimpleNamespace(
        settings=load_settings({"LABELLOOP_API_URL": URL}),
        store=store,
        project=lambda _name: SimpleNamespace(key="main-1-0"),
    )
    monkeypatch.setattr(cli.connect, "open_deployment", lambda _state: deployment)
    return store


def run(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["keys", *words])
    assert result.exit_code == code, result.output
    return result


def test_a_key_is_shown_once_and_alone_on_standard_output(bucket: MemoryStore) -> None:
    shown = run("add", "camera [7]", "--scopes", "predict, read", "--project", "pets")
    key = shown.stdout.strip()
    parts = parts_of(key)
    assert parts is not None
    assert "camera [7]" in shown.stderr
    assert "not shown again" in shown.stderr
    assert f"{URL}/docs" in shown.stderr
    (row,) = json.loads(run("list", "--json").stdout)
    assert (row["id"], row["scopes"], row["project"], row["state"]) == (
        parts[0],
        ["read", "predict"],
        "main-1-0",
        "valid",
    )
    for listed in (run("list"), run("list", "--json")):
        assert parts[1] not in listed.output
        assert "sha256" not in listed.output


def test_rotate_revoke_and_remove(bucket: MemoryStore) -> None:
    made = json.loads(run("add", "camera", "--json").stdout)
    again = json.loads(run("rotate", made["id"], "--keep", "0", "--json").stdout)
    assert again["id"] == made["id"]
    assert again["key"] != made["key"]
    assert json.loads(run("revoke", made["id"], "--json").stdout)["state"] == "revoked"
    assert "revoked" in run("rotate", made["id"], code=1).stderr
    run("remove", made["id"], code=1)  # nobody to ask
    run("remove", made["id"], "--yes")
    assert ApiKeyStore(bucket).all() == []
    assert "labelloop keys list" in run("revoke", made["id"], code=1).stderr


@pytest.mark.parametrize("words", [["--scopes", ""], ["--scopes", "root"], ["--scopes", "read,,root"], ["--days", "-1"],
                                   ["--per-minute", "0"]])  # fmt: skip
def test_what_is_typed_wrongly_makes_no_key(bucket: MemoryStore, words: list[str]) -> None:
    run("add", "camera", *words, code=2)
    assert ApiKeyStore(bucket).all() == []
