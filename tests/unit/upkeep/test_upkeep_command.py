"""`gc`, `backup`, `restore` on the command line: what is said, and how they end."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

import cli.connect
import operations.upkeep.backup
import operations.upkeep.gc
import operations.upkeep.restore
from cli.main import app
from labelloop.errors import FormatError
from operations.upkeep.backup import BackedUp, Wanted
from operations.upkeep.gc import Heap, Tidying
from operations.upkeep.restored import Restored

PROJECTS = [SimpleNamespace(title="cats", key="main-1-1"), SimpleNamespace(title="dogs", key="main-2-1")]


@pytest.fixture(autouse=True)
def deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    def project(name: str | None) -> Any:
        return next(p for p in PROJECTS if name in {None, p.title})

    opened = SimpleNamespace(projects=SimpleNamespace(all=lambda: PROJECTS), project=project)
    monkeypatch.setattr(cli.connect, "open_deployment", lambda _state_dir: opened)


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*words])
    return done.exit_code, done.output


def tidy(_deployment: Any, record: Any, _report: Any, *, dry_run: bool) -> Tidying:
    if record.title == "cats" and not dry_run:
        raise FormatError("made by a newer labelloop")
    went = Heap("head", 2, 4_096_000, "no kept version names it")
    return Tidying(record.title, record.key, (went,), (Heap("snapshot", 1, 10, "the newest"),), None)


def test_gc_tells_of_every_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations.upkeep.gc, "tidy", tidy)
    code, output = run("gc", "--dry-run")
    assert code == 0
    assert output.count("to delete") == 2
    assert "4.1 MB" in output
    assert "the newest" not in output
    assert "the newest" in run("gc", "--dry-run", "--keep", "--project", "dogs")[1]
    (page,) = json.loads(run("gc", "--dry-run", "--json", "--project", "dogs")[1])
    assert page["removed"][0] == {"what": "head", "count": 2, "bytes": 4_096_000, "why": "no kept version names it"}


def test_one_project_that_cannot_be_tidied_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations.upkeep.gc, "tidy", tidy)
    code, output = run("gc")
    assert code == 1
    assert "cats: made by a newer labelloop" in output
    assert "dogs" in output


def test_a_backup_that_lacks_something_ends_with_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    damaged: list[str] = []
    selections: list[Wanted] = []

    def fake(_deployment: Any, record: Any, path: Path, selection: Wanted, _report: Any) -> BackedUp:
        selections.append(selection)
        return BackedUp(str(path), record.title, "v3", 5_000, 4, 3, 2, damaged=damaged)

    monkeypatch.setattr(operations.upkeep.backup, "backup", fake)
    words = ("backup", "--project", "cats", "--out", str(tmp_path / "b.tar"))
    assert run(*words)[0] == 0
    damaged.append("models/heads/x: it was changed")
    code, output = run(*words, "--without-features", "--with-images")
    assert code == 1
    assert "left out: models/heads/x" in output
    assert selections == [Wanted(features=True, images=False), Wanted(features=False, images=True)]


@pytest.mark.parametrize(("anew", "says"), [(True, "3 tasks with 2 answers"), (False, "4 objects replaced")])
def test_a_restore_tells_what_it_did(monkeypatch: pytest.MonkeyPatch, anew: bool, says: str) -> None:
    done = Restored("cats", "main-9-1", anew, put=4, tasks=3, annotations=2, live="v3", notes=["dated anew"])
    monkeypatch.setattr(operations.upkeep.restore, "restore", lambda *_words, **_options: done)
    code, output = run("restore", "b.tar")
    assert code == 0
    assert says in output.replace("\n", " ")
    assert "live: v3" in output.replace("\n", " ")
    assert "dated anew" in output
