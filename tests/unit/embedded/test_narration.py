"""What a person reads while something takes long: what is done, how far it is, how long it takes; no long silence."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from cli.terminal.reporting import Spoken, reporting
from cli.views.next_steps import UNKNOWN, next_steps
from embedded import environments, progress
from embedded.environments import ensure_environments
from embedded.process import ServiceState, ServiceStatus
from embedded.progress import live_progress
from labelloop.errors import StudioError
from tests.unit.worlds.operations import OpsWorld


def test_a_step_is_said_as_it_begins_every_few_seconds_and_as_it_ends() -> None:
    now = [0.0]
    spoken = Spoken(clock=lambda: now[0], every_s=5)
    lines = []
    for done in range(101):
        lines.append(spoken("upload", done, 100))
        now[0] += 0.25
    assert [text for text in lines if text] == [
        "upload: 0/100", "upload: 20/100, 5 s, about 20 s left", "upload: 40/100, 10 s, about 15 s left",
        "upload: 60/100, 15 s, about 10 s left", "upload: 80/100, 20 s, about 5 s left", "upload: 100/100, 25 s",
    ]  # fmt: skip
    assert spoken("upload", 100, 100) is None
    assert spoken("import", 3, 10) == "import: 3/10"  # what was done before says nothing of how fast it is


def test_a_step_that_stands_still_is_no_silence() -> None:
    now = [0.0]
    spoken = Spoken(clock=lambda: now[0], every_s=5)
    spoken("order", 0, 1)
    now[0] = 6
    assert spoken("order", 0, 1) == "order: 0/1, 6 s"


def test_lines_go_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    with reporting(Console(file=out, force_terminal=False)) as report:
        report("copy [red]", 1, 2)
        report("copy [red]", 2, 2)
    assert out.getvalue().splitlines() == ["copy [red]: 1/2", "copy [red]: 2/2, 0 s"]


def test_services_that_start_slowly_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    out, now = io.StringIO(), [1000.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(time=lambda: now[0]))
    services = [
        ServiceStatus("s3", ServiceState.READY, 1, 0, 0.0, ""),
        ServiceStatus("studio", ServiceState.STARTING, 1, 0, 0.0, ""),
    ]
    with live_progress(Console(file=out, force_terminal=False, width=200)) as show:
        for _ in range(25):
            show(services)
            now[0] += 1
        for done in range(3):
            show(services, f"upload images: {done}/3")
            now[0] += 1
    lines = [line.split("s  ", 1)[1] for line in out.getvalue().splitlines()]
    assert lines[:2] == ["s3            ready", "studio        starting"]
    waits = [line for line in lines if line.startswith("1 of 2 services ready")]
    assert len(waits) == 2
    assert waits[0].endswith("still starting: studio")
    assert lines[-1] == "upload images: 0/3"


def test_a_build_says_what_it_does_how_far_it_is_and_how_long_that_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = threading.Event()
    monkeypatch.setattr(environments, "TICK_S", 0.05)
    monkeypatch.setattr(environments, "run", lambda command, **_: ready.wait(5) if "sync" in command else None)
    monkeypatch.setattr(environments, "_prepare_database", lambda _: None)
    monkeypatch.setattr(environments, "find_uv", lambda: "uv")
    (tmp_path / "requirements.lock").write_text("a==1 \\\n    --hash=sha256:0\nb==2 \\\n    --hash=sha256:1\n")
    for name in ("label-studio", "s3"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(environments.shutil, "rmtree", lambda *_, **__: None)
    lines: list[str] = []

    def report(text: str) -> None:
        lines.append(text)
        if sum("label-studio: fetching" in line for line in lines) == 2:
            ready.set()

    ensure_environments(tmp_path, report, ours=tmp_path)
    assert lines[0].startswith("building 3 environments, once (label-studio, s3, labelloop): usually")
    assert any("1 of 3 ready: labelloop" in line for line in lines)
    assert any("3 of 3 ready" in line for line in lines)
    assert any("label-studio: fetching and installing" in line and "packages" in line for line in lines)


def test_the_number_of_packages_is_that_of_the_lock() -> None:
    lock = environments.HERE / "s3.lock"
    assert environments._packages(lock) == lock.read_text().count("==")


class Studio:
    """Answers that somebody may invite, or that they may not."""

    def __init__(self, invite: Any) -> None:
        self.http, self.url, self._invite = self, "http://127.0.0.1:8080", invite

    def call(self, _method: str, _path: str) -> Any:
        if isinstance(self._invite, Exception):
            raise self._invite
        return self._invite


def steps(invite: Any, url: str) -> list[str]:
    world = OpsWorld()
    deployment: Any = SimpleNamespace(
        studio=Studio(invite), settings=SimpleNamespace(studio_link=url), registry=world.deployment.registry
    )
    return [str(step) for step in next_steps(deployment, world.record, Path(".labelloop"), login="me / secret")]


def test_the_end_says_where_to_go_what_to_press_and_what_happens() -> None:
    there = steps({"invite_url": "/user/signup/?token=t"}, "http://127.0.0.1:8080")
    assert [line.split()[0] for line in there] == ["Open", "Log", "Press", "Then", "Invite"]
    assert there[0].endswith("http://127.0.0.1:8080/projects/1/data")
    assert "labelloop status shows it" in there[3]
    assert "5 answers make the first model, every 10 more a new one" in there[3]
    assert "http://127.0.0.1:8080/user/signup/?token=t" in there[4]
    assert "ssh -L 8080:127.0.0.1:8080" in there[4]
    public = steps({"invite_url": "https://ls.example.com/user/signup/?token=t"}, "https://ls.example.com/")
    assert public[4].endswith("https://ls.example.com/user/signup/?token=t")
    for refusal in (StudioError("no", status=403), {}, {"invite_url": None}, []):
        assert steps(refusal, "https://ls.example.com")[4].endswith(UNKNOWN)


def test_a_terminal_shows_how_many_are_ready_and_what_is_done_in_whole_lines() -> None:
    out = io.StringIO()
    services = [ServiceStatus("s3", ServiceState.READY, 1, 0, 0.0, "")]
    with live_progress(Console(file=out, force_terminal=True, width=60)) as show:
        show(services, "sync images into Label Studio: 120/1797, 9 s")
    assert "1 of 1 services ready, 0 s (usually 20 to 60 s)" in out.getvalue()
    assert "sync images into Label Studio: 120/1797, 9 s" in out.getvalue()
