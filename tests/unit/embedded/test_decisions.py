"""The rules of the embedded stack: restart or give up, order of start, ports, what a lock change means."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from embedded.environments import HERE, MARKER, Builder, ensure_environments, lock_digest, run
from embedded.ports import LOOPBACK, RANGE, is_free, pick_port
from embedded.process import GiveUp, Restart, ServiceSpec, after_exit
from embedded.supervisor import dependency_levels
from labelloop.errors import StackError


def spec(name: str, *needs: str) -> ServiceSpec:
    return ServiceSpec(
        name=name, argv=("true",), env={}, ready=lambda: True, log=Path("never-written"), depends_on=needs
    )


def test_backoff_doubles_from_a_fifth_of_a_second_to_ten_seconds() -> None:
    delays = [after_exit(failures=n, was_ready=True, reason="x") for n in (1, 2, 3, 6, 7, 1000)]
    assert delays == [Restart(0.2), Restart(0.4), Restart(0.8), Restart(6.4), Restart(10.0), Restart(10.0)]


def test_a_service_that_never_became_ready_is_given_up_with_the_reason() -> None:
    assert isinstance(after_exit(failures=4, was_ready=False, reason="code 1"), Restart)
    decision = after_exit(failures=5, was_ready=False, reason="code 1")
    assert isinstance(decision, GiveUp)
    assert "code 1" in decision.reason


def test_dependencies_come_first_and_independent_services_together() -> None:
    specs = [spec("sync", "valkey", "studio"), spec("studio"), spec("valkey")]
    levels = dependency_levels(specs)
    assert [set(level) for level in levels] == [{"studio", "valkey"}, {"sync"}]


@pytest.mark.parametrize(
    ("specs", "word"),
    [
        ([spec("a", "b"), spec("b", "a")], "circle"),
        ([spec("a", "b")], "nobody starts"),
        ([spec("a"), spec("a")], "same name"),
    ],
)
def test_senseless_dependencies_are_refused(specs: list[ServiceSpec], word: str) -> None:
    with pytest.raises(StackError, match=word):
        dependency_levels(specs)


def test_a_port_that_is_listened_on_is_not_free() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        assert not is_free(server.getsockname()[1])


def test_picked_ports_are_free_and_differ() -> None:
    first = pick_port()
    assert first in RANGE
    assert is_free(first)
    assert pick_port({first}) != first


def test_locks_name_no_address_and_every_package_has_hashes() -> None:
    for lock in HERE.glob("*.lock"):
        text = lock.read_text()
        assert "://" not in text
        assert text.count("==") <= text.count("--hash=sha256:")


def test_current_environments_are_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("label-studio", "s3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / MARKER).write_text(lock_digest(name))
    monkeypatch.setattr(Builder, "ensure", lambda *_: pytest.fail("built again"))
    assert ensure_environments(tmp_path).s3_bin == tmp_path / "s3" / "bin"


def test_a_changed_lock_or_a_killed_build_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    monkeypatch.setattr(Builder, "install", lambda _, place, lock: (place.mkdir(), built.append(lock.name)))
    half = tmp_path / "s3"
    half.mkdir()
    (half / "rest-of-a-killed-build").touch()
    builder = Builder("uv", lambda *_: None)
    builder.ensure(half, lambda _: None)
    builder.ensure(half, lambda _: None)
    assert built == ["s3.lock"]
    assert not (half / "rest-of-a-killed-build").exists()
    (half / MARKER).write_text("another lock")
    builder.ensure(half, lambda _: None)
    assert built == ["s3.lock", "s3.lock"]


def test_a_build_that_fails_says_what_and_what_to_do() -> None:
    with pytest.raises(StackError, match=r"(?s)code 3.*no such package.*network"):
        run(["python3", "-c", "import sys; print('no such package'); sys.exit(3)"])
