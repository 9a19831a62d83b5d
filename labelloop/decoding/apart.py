"""Images that are large or intricate, decoded in helper processes: a thread cannot be stopped, a process can."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from labelloop.decoding.declared import Declared
from labelloop.decoding.picture import Pixels, Shape, Square
from labelloop.errors import DecodersBusyError, ImageUnreadableError

CPU_S = 10.0
WALL_S = 60.0  # the machine is overloaded then, for the processor time above is the image's own
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {  # of a process that reads foreign bytes: no secrets; large blocks go back to the system at once
    "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]), "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "1000000",
}  # fmt: skip
COMMAND = (sys.executable, "-m", "labelloop.decoding.child")

Helper = subprocess.Popen[bytes]


class Helpers:
    """At most ``count`` processes, started when they are needed; they end by themselves when nothing comes."""

    def __init__(self, count: int) -> None:
        self._free: queue.LifoQueue[Helper | None] = queue.LifoQueue()
        for _ in range(count):
            self._free.put(None)

    def render(self, data: bytes, declared: Declared, shape: Shape, memory: int, wait_s: float) -> Pixels:
        """As `picture.render`. ImageUnreadableError where the process died of it; DecodersBusyError."""
        try:
            helper = self._free.get(timeout=wait_s)
        except queue.Empty as error:
            raise DecodersBusyError(f"the decoders were busy for {wait_s:.0f} s; try again later") from error
        job = {
            "bytes": len(data), "declared": asdict(declared), "memory": memory + 2 * len(data), "cpu_s": CPU_S,
            "square" if isinstance(shape, Square) else "whole": asdict(shape),
        }  # fmt: skip
        try:
            helper, reply, pixels = _ask(helper, job, data)
        except BaseException:
            self._free.put(None)
            raise
        self._free.put(helper)
        if "error" in reply:
            raise ImageUnreadableError(reply["error"])
        return np.frombuffer(pixels, dtype=np.uint8).reshape(reply["shape"])

    def close(self) -> None:
        """End those that wait."""
        while not self._free.empty():
            if helper := self._free.get_nowait():
                _end(helper)


def _ask(helper: Helper | None, job: dict[str, Any], data: bytes) -> tuple[Helper, dict[str, Any], bytes]:
    """The helper that answered, and its reply. One that had gone, or is killed from outside, is replaced once."""
    for at_hand in (helper, None):
        helper = _living(at_hand)
        stopped = threading.Event()
        timer = threading.Timer(WALL_S, _stop, (helper, stopped))
        timer.start()
        try:
            answer = _exchange(helper, job, data)
        finally:
            timer.cancel()
        if answer is not None:
            return helper, *answer
        code = _end(helper)
        if stopped.is_set():
            raise DecodersBusyError(f"the image was not decoded within {WALL_S:.0f} s; try again later")
        if code not in {0, -signal.SIGKILL}:
            raise ImageUnreadableError(_death(code))
    raise DecodersBusyError("the process that decoded the image was killed from outside, twice; is memory short?")


def _exchange(helper: Helper, job: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes] | None:
    """None where the process is gone."""
    assert helper.stdin
    assert helper.stdout
    try:
        helper.stdin.write(json.dumps(job).encode() + b"\n")
        helper.stdin.write(data)
        helper.stdin.flush()
        header = helper.stdout.readline()
        if not header.endswith(b"\n"):
            return None
        reply: dict[str, Any] = json.loads(header)
        size = int(np.prod(reply.get("shape", (0,))))
        pixels = helper.stdout.read(size)
    except (BrokenPipeError, ConnectionResetError):
        return None
    return (reply, pixels) if len(pixels) == size else None


def _living(helper: Helper | None) -> Helper:
    """The same one, or a new one where it has gone meanwhile."""
    if helper is None:
        return _started()
    if helper.poll() is None:
        return helper
    _end(helper)
    return _started()


def _started() -> Helper:
    return subprocess.Popen(
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    )


def _stop(helper: Helper, stopped: threading.Event) -> None:
    stopped.set()
    helper.kill()


def _end(helper: Helper) -> int:
    """Its exit code; negative: the signal that it died of."""
    for pipe in (helper.stdin, helper.stdout):
        try:
            assert pipe
            pipe.close()
        except BrokenPipeError:  # what it never read
            continue
    try:
        return helper.wait(timeout=1)
    except subprocess.TimeoutExpired:
        helper.kill()
        return helper.wait()


def _death(code: int) -> str:
    if -code == signal.SIGXCPU:
        return f"the image takes more than {CPU_S:.0f} s to decode: save it in a simpler form, e.g. as PNG or JPEG"
    cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"the image ended the process that decoded it ({cause}): it is damaged"
