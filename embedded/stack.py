"""The whole embedded stack on one state directory: start, wait, stay, stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from embedded.environments import DEFAULT_ROOT, Report, ensure_environments
from embedded.process import ServiceSpec, ServiceStatus
from embedded.progress import Show, StackProgress, unseen, write_progress
from embedded.services import base_services
from embedded.state import RunningProcess, StackState, locked, open_state, save_state, start_time
from embedded.supervisor import Supervisor
from labelloop.errors import StackError

Extra = Callable[[StackState], Sequence[ServiceSpec]]
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stack:
    """Real Label Studio, Valkey and S3 plus `extra` services; use it as a context manager, so that it always stops.

    From `start` to `stop`, SIGTERM and SIGHUP act like Ctrl-C: they raise KeyboardInterrupt in the main thread.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        base_env: Mapping[str, str],
        environments_root: Path = DEFAULT_ROOT,
        extra: Extra = lambda _: (),
        report: Report = lambda _: None,
    ) -> None:
        """Does nothing yet. `base_env` is the command's own environment; `report` hears of the unusual."""
        self._directory = state_dir.absolute()
        self._base_env = base_env
        self._environments_root = environments_root
        self._extra = extra
        self._report = report
        self._resources = ExitStack()
        self._supervisor: Supervisor | None = None
        self._announced_ready = False
        self._step = ""
        self._write_lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> StackState:
        """Starts everything and returns at once; StackError if another stack has the directory.

        Builds the environments first where they are missing, which takes a few minutes.
        """
        self._resources.enter_context(locked(self._directory))
        self._resources.enter_context(_interruptible())
        environments = ensure_environments(self._environments_root, self._report)
        state = open_state(self._directory, self._report)
        state = replace(state, supervisor=this_process())
        specs = [*base_services(state, environments, self._base_env), *self._extra(state)]
        self._supervisor = Supervisor(specs, mark=str(self._directory), on_change=self._write)
        self._write(self._supervisor.statuses())
        save_state(state)
        self._supervisor.start()
        return state

    def wait_ready(self, show: Show = unseen) -> None:
        """Blocks until every service is ready, showing progress (`live_progress`); StackError if one fails."""
        self._running().wait_ready(show)

    def statuses(self) -> tuple[ServiceStatus, ...]:
        """What each service does now."""
        return self._running().statuses()

    def announce(self, step: str) -> None:
        """Let waiting processes know what is done now, in words."""
        self._step = step
        self._write(self.statuses())

    def run_forever(self) -> None:
        """Announces to waiting processes that all is set up, then stays until SIGINT, SIGTERM or SIGHUP, and stops."""
        try:
            # within the try: who reads that all is ready may stop us before the write has returned
            self._announced_ready = True
            self._write(self.statuses())
            threading.Event().wait()
        except KeyboardInterrupt:
            self._report("stopping")
        finally:
            self.stop()

    def stop(self) -> None:
        """Stops all in order; a second Ctrl-C kills what is left. Harmless if nothing runs."""
        supervisor, self._supervisor = self._supervisor, None
        try:
            if supervisor is not None:
                self._announced_ready = False
                supervisor.stop()
        finally:
            self._resources.close()

    def _running(self) -> Supervisor:
        if self._supervisor is None:
            raise StackError("the stack is not running: call start() first")
        return self._supervisor

    def _write(self, statuses: Sequence[ServiceStatus]) -> None:
        with self._write_lock:  # the supervisor's thread and ours
            write_progress(self._directory, StackProgress(self._announced_ready, tuple(statuses), self._step))


def this_process() -> RunningProcess:
    """Who is asking, as other processes can recognise it."""
    return RunningProcess(os.getpid(), start_time(os.getpid()) or 0)


@contextmanager
def _interruptible() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # what was ignored stays so: `nohup` means it
    heard = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    former = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
