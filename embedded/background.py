"""The stack without a terminal: `up --detach` starts it as a process of its own, `down` stops it from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from embedded.process import last_lines, open_log
from embedded.progress import Show, read_progress, unseen
from embedded.state import StackState, running_stack
from labelloop.errors import StackError

POLL_S = 0.1


def up_log(state_dir: Path) -> Path:
    """Where a detached stack writes."""
    return state_dir / "logs" / "up.log"


def detach(state_dir: Path, argv: Sequence[str], *, show: Show = unseen) -> StackState:
    """Runs `argv` (a `labelloop up` in the foreground) in the background and returns once it has set everything up.

    StackError, with the end of its log, if it ends before. Ctrl-C while waiting stops it again.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    state_dir.chmod(0o700)
    log = up_log(state_dir)
    with open_log(log) as stream:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True)
    try:
        return _wait_set_up(state_dir, process, log, show)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise


def _wait_set_up(state_dir: Path, process: subprocess.Popen[bytes], log: Path, show: Show) -> StackState:
    while (code := process.poll()) is None:
        state, progress = running_stack(state_dir), read_progress(state_dir)
        # the files may still be those of an earlier run
        if state is not None and state.supervisor is not None and state.supervisor.pid == process.pid and progress:
            show(progress.services, progress.step)
            if progress.ready:
                process.returncode = 0  # it outlives us on purpose: Popen must not warn of that
                return state
        time.sleep(POLL_S)
    raise StackError(f"the stack ended with code {code} while starting. The end of {log}:\n{last_lines(log, 30)}")


def stop_running(state_dir: Path, *, timeout_s: float = 90.0) -> bool:
    """Stops the stack of this directory in order; False if none ran. One that hangs is killed."""
    state = running_stack(state_dir)
    if state is None or state.supervisor is None:
        return False
    supervisor, deadline = state.supervisor, time.monotonic() + timeout_s
    os.kill(supervisor.pid, signal.SIGTERM)
    while supervisor.alive and time.monotonic() < deadline:
        time.sleep(POLL_S)
    if supervisor.alive:
        os.kill(supervisor.pid, signal.SIGKILL)
    return True
