"""The backend's passwords: the current one, former ones while they are replaced, and none that was withdrawn."""

from __future__ import annotations

from pathlib import Path

import pytest
from werkzeug.datastructures import Authorization

from labelloop.config.settings import load_settings
from ml_backend import auth
from ml_backend.auth import AccessGate


def given(password: str, user: str = "labelloop") -> Authorization:
    return Authorization("basic", {"username": user, "password": password})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("one\n")
    return path


def gate_of(file: Path) -> AccessGate:
    return AccessGate(load_settings({"LABELLOOP_BACKEND_PASSWORD_FILE": str(file)}))


def test_without_a_password_everybody_is_let_in() -> None:
    gate = AccessGate(load_settings({}))
    assert gate.is_open
    assert gate.knows(None)


def test_user_and_password_must_both_be_right(file: Path) -> None:
    gate = gate_of(file)
    assert not gate.is_open
    assert gate.knows(given("one"))
    assert not gate.knows(given("one", user="other"))
    assert not gate.knows(given("two"))
    assert not gate.knows(Authorization("bearer", token="one"))
    assert not gate.knows(None)


def test_a_new_password_counts_at_once_beside_the_former_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "LOOK_AGAIN_S", 0.0)
    gate = gate_of(file)
    assert not gate.knows(given("two"))
    file.write_text("two\none\n")
    assert gate.knows(given("two"))
    assert gate.knows(given("one"))


def test_a_withdrawn_password_counts_no_longer(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("two\none\n")
    gate = gate_of(file)
    assert gate.knows(given("one"))
    file.write_text("two\n")
    monkeypatch.setattr(auth, "LOOK_EVERY_S", 0.0)
    assert not gate.knows(given("one"))
    assert gate.knows(given("two"))


def test_whoever_guesses_does_not_make_us_read_the_file_each_time(file: Path) -> None:
    gate = gate_of(file)
    file.write_text("two\n")
    assert not gate.knows(given("two")), "looked at a moment ago, at the start"
