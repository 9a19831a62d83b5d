"""One service as a process: what to run, what became of it, and whether to run it again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from labelloop.errors import StackError

GUARD = Path(__file__).with_name("guard.py")
STACK_MARK = "LABELLOOP_STACK"
SERVICE_MARK = "LABELLOOP_SERVICE"
FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 10.0
TRIES_BEFORE_READY = 5
LOG_LIMIT_BYTES = 20_000_000


@dataclass(frozen=True, kw_only=True)
class ServiceSpec:
    """How one service is started, known to be ready, and stopped.

    `env` is the whole environment. `prepare` runs before every start (write a config, copy a database). `ready` may
    block for two seconds at most and is asked again until it says yes; first, the process must live for `settle_s`.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)  # it holds secrets
    ready: Callable[[], bool]
    log: Path
    ready_timeout_s: float = 60.0
    settle_s: float = 0.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_grace_s: float = 10.0
    niceness: int = 0
    depends_on: tuple[str, ...] = ()
    prepare: Callable[[], None] | None = None
    cwd: Path | None = None
    awaited: bool = True  # False: a person can begin to work while it is still starting


class ServiceState(StrEnum):
    """Where a service is in its life."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class ServiceStatus:
    """What a person sees of a service; `since` is the epoch second of the last change of state."""

    name: str
    state: ServiceState = ServiceState.WAITING
    pid: int | None = None
    restarts: int = 0
    since: float = 0.0
    detail: str = ""


@dataclass(frozen=True)
class Restart:
    """Run it again after `delay_s`."""

    delay_s: float


@dataclass(frozen=True)
class GiveUp:
    """Leave it down, and why."""

    reason: str


def after_exit(*, failures: int, was_ready: bool, reason: str) -> Restart | GiveUp:
    """Whether a service that ended for the `failures`-th time in a row is started again.

    One that never became ready is most likely set up wrongly: a person should hear of it soon. One that worked before
    is tried for ever.
    """
    if not was_ready and failures >= TRIES_BEFORE_READY:
        return GiveUp(f"{reason}, {failures} times in a row")
    return Restart(min(FIRST_DELAY_S * 2.0 ** min(failures - 1, 16), LONGEST_DELAY_S))


class Child:
    """One run of a service below its guard; everything it forks goes with it."""

    def __init__(self, spec: ServiceSpec, *, lifeline: int, mark: str) -> None:
        """Starts it; StackError if the system cannot."""
        self._spec = spec
        self._mark = mark
        self.started = time.monotonic()
        self._guard = self._launch(lifeline)
        self.pid = self._announced_pid()

    def _launch(self, lifeline: int) -> subprocess.Popen[bytes]:
        spec = self._spec
        head = [sys.executable, "-I", "-S", str(GUARD)]
        how = [str(spec.niceness), str(int(spec.stop_signal)), str(spec.stop_grace_s)]
        with open_log(spec.log) as log:
            try:
                return subprocess.Popen(
                    [*head, *how, *spec.argv],
                    env={**spec.env, STACK_MARK: self._mark, SERVICE_MARK: spec.name},
                    cwd=spec.cwd,
                    stdin=lifeline,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,  # a Ctrl-C in the terminal is for the supervisor alone
                )
            except OSError as error:
                raise StackError(f"{spec.name} cannot be started: {error}") from error

    def _announced_pid(self) -> int | None:
        assert self._guard.stdout is not None
        with self._guard.stdout as pipe:
            line = pipe.readline().strip()
        return int(line) if line else None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative if the guard itself was killed."""
        code = self._guard.poll()
        if code is not None and code < 0:
            sweep(self._mark, self._spec.name)
        return code

    def ask_to_stop(self) -> None:
        """Begins the orderly stop; the guard sees to the grace time."""
        with contextlib.suppress(ProcessLookupError):
            self._guard.send_signal(signal.SIGTERM)

    def wait_stopped(self) -> None:
        """Returns when it is gone, killing the guard if that one hangs."""
        try:
            self._guard.wait(self._spec.stop_grace_s + 5.0)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Ends it and all below it without ado."""
        self._guard.kill()
        self._guard.wait()
        sweep(self._mark, self._spec.name)


@contextlib.contextmanager
def open_log(path: Path) -> Iterator[int]:
    """A file descriptor that appends to `path` (mode 0600); one old generation is kept once it is large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_suffix(".log.1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def last_lines(log: Path, count: int = 12) -> str:
    """The end of a log, for an error message; empty if there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 64_000))
        return "\n".join(stream.read().decode(errors="replace").splitlines()[-count:])


def sweep(mark: str, service: str | None = None) -> int:
    """Kills processes that carry this stack's mark in their environment; how many.

    The guards leave nothing behind; this is for the case that a guard was killed together with its supervisor.
    """
    marks = {f"{STACK_MARK}={mark}".encode()}
    if service is not None:
        marks.add(f"{SERVICE_MARK}={service}".encode())
    killed = 0
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marks <= set(environ.read_bytes().split(b"\0")):
                os.kill(int(environ.parent.name), signal.SIGKILL)
                killed += 1
        except OSError:
            continue
    return killed
