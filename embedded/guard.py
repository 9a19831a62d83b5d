"""Runs one service so that nothing it ever forks outlives the supervisor (a script; standard library only).

    python -I -S guard.py NICENESS STOP_SIGNAL GRACE_S PROGRAM [ARGUMENT…]

Standard input is the lifeline, a pipe whose only writer is the supervisor: end of file means that the supervisor is
gone, however it went, and then everything below is killed at once. A pipe and not PR_SET_PDEATHSIG, because that one
is bound to the parent's thread and does not reach grandchildren. The guard prints the service's pid on standard
output; the service writes to standard error, which is its log.

SIGTERM asks for an orderly stop: the service gets STOP_SIGNAL, and after GRACE_S seconds SIGKILL.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
STOPPERS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
LAST_RESORT_S = 10.0


def prctl(option: int, value: int) -> None:
    """Sets one process attribute on Linux; does nothing elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """Pids below `root` according to /proc, or none where there is no /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # the name in brackets may itself contain brackets and spaces
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    pids, todo = [], [root]
    while todo:
        below = children.get(todo.pop(), [])
        pids += below
        todo += below
    return pids


def kill_everything(child: int) -> None:
    """SIGKILL to all descendants until none is left; orphans come to us, for we are their subreaper."""
    deadline = time.monotonic() + LAST_RESORT_S
    while time.monotonic() < deadline:
        if sys.platform != "linux":
            _kill_quietly(os.killpg, child)
        for pid in descendants(os.getpid()):
            _kill_quietly(os.kill, pid)
        if not _reap():
            return
        time.sleep(0.01)


def _kill_quietly(kill: Callable[[int, int], None], pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        kill(pid, signal.SIGKILL)


def _reap() -> bool:
    """Collects the dead; whether any child is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def give_way(niceness: int) -> None:
    """Lets others go first on a busy processor: also as a session, by which Linux shares it out (autogroups)."""
    os.nice(niceness)
    with contextlib.suppress(OSError), Path("/proc/self/autogroup").open("w") as group:
        group.write(str(os.nice(0)))


def spawn(niceness: int, command: list[str]) -> int:
    """Forks and executes the service in a session of its own; its pid."""
    guard = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # the guard died before the line above
            os._exit(1)
        give_way(niceness)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        os.execvp(command[0], command)  # noqa: S606 - no shell is what we want
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def watch(child: int, stop_signal: int, grace_s: float, wake: int) -> int:
    """Blocks until the service ended, had its grace, or the supervisor is gone; the exit code to report."""
    deadline: float | None = None
    while True:
        code = _collect(child)
        if code is not None:
            return code
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return 128 + signal.SIGKILL
        readable = select.select([0, wake], [], [], left)[0]
        if 0 in readable and not os.read(0, 1):
            return 128 + signal.SIGKILL
        if wake in readable and STOPPERS.intersection(os.read(wake, 512)) and deadline is None:
            os.kill(child, stop_signal)  # not reaped yet, so the pid is still ours
            deadline = time.monotonic() + grace_s


def _collect(child: int) -> int | None:
    """Reaps whatever is dead; the service's exit code once it is among them."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        if not pid:
            return None


def main(arguments: list[str]) -> int:
    """Guards one service to its end; the service's exit code, or 128 plus the signal that ended it."""
    niceness, stop_signal, grace_s = int(arguments[0]), int(arguments[1]), float(arguments[2])
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (*STOPPERS, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    child = spawn(niceness, arguments[3:])
    os.write(1, f"{child}\n".encode())
    os.close(1)
    code = watch(child, stop_signal, grace_s, reader)
    kill_everything(child)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
