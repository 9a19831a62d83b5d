"""A real supervisor in a process of its own, with real children and grandchildren."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
import redis

from embedded.process import STACK_MARK, sweep
from labelloop.errors import StackError
from tests.integration.conftest import S3_KEY

# a service that forks a child which detaches itself, as a queue worker or a daemon would, and notes both pids
FAMILY = """
import os, signal, sys, time
from pathlib import Path
folder, name = Path(sys.argv[1]), sys.argv[2]
signal.signal(signal.SIGTERM, lambda *_: (open(folder / "stopped", "a").write(name + "\\n"), sys.exit(0)))
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork():
        os._exit(0)
    (folder / f"{name}.grandchild").write_text(str(os.getpid()))
    time.sleep(600)
(folder / f"{name}.child").write_text(str(os.getpid()))
time.sleep(600)
"""

SUPERVISE = """
import json, os, signal, sys
from pathlib import Path
from embedded import stack
from embedded.process import ServiceSpec
from embedded.environments import Environments

folder = Path(sys.argv[1])

def service(name, *needs):
    return ServiceSpec(
        name=name, argv=(sys.executable, "-c", os.environ["FAMILY"], str(folder), name), env=dict(os.environ),
        ready=lambda: (folder / f"{name}.grandchild").exists(), log=folder / f"{name}.log", depends_on=needs,
    )

# the foreign servers are not what is tested here
stack.ensure_environments = lambda *_: Environments(folder, folder, folder)
stack.base_services = lambda *_: [service("base")]
if "STOP_WHEN_ANNOUNCED" in os.environ:
    write = stack.write_progress
    stack.write_progress = lambda folder, now: (write(folder, now), now.ready and os.kill(os.getpid(), signal.SIGTERM))
with stack.Stack(folder, base_env={}, extra=lambda _: [service("upper", "base")], report=print) as running:
    running.start()
    running.wait_ready()
    running.run_forever()
"""


def eventually(question: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if question():
            return True
        time.sleep(0.02)
    return question()


def marked(folder: Path) -> list[int]:
    """Living processes of this stack, found by their environment as a last witness."""
    mark, pids = f"{STACK_MARK}={folder}".encode(), []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in environ.read_bytes().split(b"\0"):
                pids.append(int(environ.parent.name))
        except OSError:
            continue
    return pids


def progress(folder: Path) -> dict[str, object]:
    try:
        return dict(json.loads((folder / "services.json").read_text()))
    except FileNotFoundError:
        return {}


def status(folder: Path, name: str) -> dict[str, object]:
    services = progress(folder).get("services", [])
    assert isinstance(services, list)
    return next((dict(item) for item in services if item["name"] == name), {})


class Run:
    """`up` as a person has it: a process that is watched from outside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for stale in folder.glob("*.*child"):
            stale.unlink()
        env = {**os.environ, "FAMILY": FAMILY, "PYTHONPATH": str(Path(__file__).parents[2])}
        with (folder / "up.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SUPERVISE, str(folder)], env=env, stdout=log, stderr=log
            )

    def wait_ready(self) -> None:
        ready = eventually(lambda: self.process.poll() is not None or self.is_ready())
        assert ready, (self.folder / "up.log").read_text()
        assert self.process.poll() is None, (self.folder / "up.log").read_text()

    def is_ready(self) -> bool:
        stack = self.folder / "stack.json"
        started = stack.exists() and json.loads(stack.read_text())["supervisor"]
        return bool(started) and started["pid"] == self.process.pid and progress(self.folder).get("ready") is True

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Run]]:
    runs: list[Run] = []

    def begin() -> Run:
        runs.append(Run(tmp_path))
        runs[-1].wait_ready()
        return runs[-1]

    yield begin
    for run in runs:
        run.process.kill()
        run.process.wait()
    sweep(str(tmp_path))


def test_nothing_survives_the_death_of_the_supervisor(start: Callable[[], Run]) -> None:
    run = start()
    assert len(marked(run.folder)) == 6  # for each of two services: guard, child, grandchild
    run.end(signal.SIGKILL)
    assert eventually(lambda: not marked(run.folder), 5)


def test_leftovers_of_a_killed_guard_and_supervisor_end_at_the_next_start(start: Callable[[], Run]) -> None:
    run = start()
    child = int((run.folder / "base.child").read_text())
    grandchild = int((run.folder / "base.grandchild").read_text())
    guard = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(run.process.pid, signal.SIGSTOP)  # so that it cannot clean up
    os.kill(guard, signal.SIGKILL)
    run.end(signal.SIGKILL)
    assert eventually(lambda: marked(run.folder) == [grandchild], 5)
    second = start()
    assert grandchild not in marked(second.folder)


def test_the_stop_is_orderly_and_in_reverse_order(start: Callable[[], Run]) -> None:
    run = start()
    assert run.end(signal.SIGTERM) == 0
    assert (run.folder / "stopped").read_text().split() == ["upper", "base"]
    assert not marked(run.folder)
    assert progress(run.folder)["ready"] is False
    assert status(run.folder, "base")["state"] == "stopped"


def test_a_stop_in_the_moment_of_the_announcement_is_orderly_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOP_WHEN_ANNOUNCED", "1")
    run = Run(tmp_path)
    assert run.process.wait(20) == 0, (tmp_path / "up.log").read_text()
    assert (tmp_path / "stopped").read_text().split() == ["upper", "base"]
    assert not marked(tmp_path)


@pytest.mark.parametrize("victim", ["child", "guard"])
def test_a_service_that_dies_comes_back_without_its_old_family(start: Callable[[], Run], victim: str) -> None:
    run = start()
    child = int((run.folder / "upper.child").read_text())
    grandchild = int((run.folder / "upper.grandchild").read_text())
    guard = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(child if victim == "child" else guard, signal.SIGKILL)
    assert eventually(lambda: status(run.folder, "upper").get("restarts") == 1)
    assert eventually(lambda: status(run.folder, "upper")["state"] == "ready")
    assert status(run.folder, "upper")["pid"] != child
    assert eventually(lambda: grandchild not in marked(run.folder))
    assert status(run.folder, "base")["restarts"] == 0


def test_the_second_start_finds_the_same_ports_and_secrets(start: Callable[[], Run]) -> None:
    run = start()
    first = json.loads((run.folder / "stack.json").read_text())
    run.end(signal.SIGKILL)
    run = start()
    second = json.loads((run.folder / "stack.json").read_text())
    assert (first["ports"], first["secrets"]) == (second["ports"], second["secrets"])
    assert first["supervisor"] != second["supervisor"]


def test_a_second_stack_on_the_directory_is_refused(start: Callable[[], Run]) -> None:
    run = start()
    other = Run(run.folder)
    assert other.process.wait(20) == 1
    assert f"already runs on {run.folder} (pid {run.process.pid})" in (run.folder / "up.log").read_text()
    assert run.process.poll() is None


def test_a_stack_is_stopped_from_outside(start: Callable[[], Run]) -> None:
    from embedded.background import stop_running

    run = start()
    assert stop_running(run.folder)
    assert run.process.wait(5) == 0
    assert not stop_running(run.folder)


def test_detaching_returns_when_all_is_set_up_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from embedded.background import detach, stop_running

    monkeypatch.setenv("FAMILY", FAMILY)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    command = [sys.executable, "-c", SUPERVISE, str(tmp_path)]
    state = detach(tmp_path, command)
    assert progress(tmp_path)["ready"] is True
    with pytest.raises(StackError, match="already runs"):
        detach(tmp_path, command)
    assert state.supervisor is not None
    assert stop_running(tmp_path)
    os.waitpid(state.supervisor.pid, os.WNOHANG)


def test_a_service_that_cannot_start_is_reported_with_its_log(tmp_path: Path) -> None:
    from embedded.process import ServiceSpec
    from embedded.supervisor import Supervisor

    silent = ServiceSpec(
        name="broken",
        argv=(sys.executable, "-c", "import time; print('out of order', flush=True); time.sleep(60)"),
        env={},
        ready=lambda: False,
        ready_timeout_s=0.5,
        log=tmp_path / "broken.log",
    )
    supervisor = Supervisor([silent], mark=str(tmp_path))
    supervisor.start()
    try:
        with pytest.raises(StackError, match=r"(?s)broken did not start.*out of order"):
            supervisor.wait_ready()
    finally:
        supervisor.stop()
    assert not marked(tmp_path)


def test_a_worker_is_ready_at_its_own_heartbeat_and_not_at_an_earlier_one(valkey_url: str) -> None:
    from embedded.loop import ExpectedHeartbeat
    from labelloop.queue.heartbeat import Heartbeat

    expected = ExpectedHeartbeat(valkey_url, ("retrain_worker", "features"))
    with redis.Redis.from_url(valkey_url) as connection:
        beats = [Heartbeat(connection, "worker:dead", {"queues": ["features"]})]
        beats[0].start()
        assert eventually(lambda: list(connection.scan_iter("*:alive:worker:dead")))
        expected.forget_earlier()
        beats.append(Heartbeat(connection, "worker:other", {"queues": ["train"]}))
        beats[-1].start()
        assert eventually(lambda: list(connection.scan_iter("*:alive:worker:other")))
        assert not expected.has_come()
        beats.append(Heartbeat(connection, "worker:new", {"queues": ["features"]}))
        beats[-1].start()
        assert eventually(expected.has_come)
        for beat in beats:
            beat.stop()


def test_the_fixtures_are_real_servers(valkey_url: str, s3_endpoint: str) -> None:
    with redis.Redis.from_url(valkey_url) as connection:
        assert connection.ping()
        assert connection.config_get("appendonly") == {"appendonly": "yes"}
    client = boto3.client(
        "s3",
        endpoint_url=s3_endpoint,
        aws_access_key_id=S3_KEY.name,
        aws_secret_access_key=S3_KEY.secret,
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="supervisor-test")
    client.put_object(Bucket="supervisor-test", Key="a", Body=b"b")
    assert client.get_object(Bucket="supervisor-test", Key="a")["Body"].read() == b"b"
    client.close()
