"""`python -m labelloop.decoding.child`: decodes what comes on standard input, one image after the other.

It has no secrets in its environment, and for each image only the memory and the time that its size explains: whatever
the bytes do to the decoder, this process dies of it and nobody else does.
"""

from __future__ import annotations

import json
import math
import os
import resource
import select
import sys
from pathlib import Path
from typing import Any, BinaryIO

from PIL import AvifImagePlugin

from labelloop.decoding.declared import Declared
from labelloop.decoding.picture import Shape, Square, Whole, render
from labelloop.errors import ImageUnreadableError

IDLE_S = 60.0
SLACK = 64_000_000  # bytes beside those for the image: libraries that are loaded late, buffers of the pipe
NICENESS = 5  # answers to people go first


def serve(source: BinaryIO, out: BinaryIO) -> None:
    """Until the input ends or nothing comes for a while."""
    while select.select([source], [], [], IDLE_S)[0]:
        header = source.readline()
        if not header:
            return
        job = json.loads(header)
        reply, pixels = _answer(job, source)
        out.write(json.dumps(reply).encode() + b"\n" + pixels)
        out.flush()


def _answer(job: dict[str, Any], source: BinaryIO) -> tuple[dict[str, Any], bytes]:
    _limit(job["memory"], job["cpu_s"])
    try:
        pixels = render(source.read(job["bytes"]), Declared(**job["declared"]), _shape(job))
    except ImageUnreadableError as error:
        return {"error": str(error)}, b""
    return {"shape": pixels.shape}, pixels.tobytes()


def _shape(job: dict[str, Any]) -> Shape:
    return Square(**job["square"]) if "square" in job else Whole(**job["whole"])


def _limit(memory: int, cpu_s: float) -> None:
    """Of this process from here on, set again for each image: the kernel keeps them, whatever the decoder does."""
    spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(spent + cpu_s), resource.RLIM_INFINITY))
    statm = Path("/proc/self/statm")
    if statm.exists():
        mapped = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + memory + SLACK, resource.RLIM_INFINITY))


def main() -> None:
    """Standard output is for replies alone: what a library prints goes nowhere."""
    os.nice(NICENESS)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each has memory of its own
    with open(os.dup(1), "wb") as out:  # noqa: PTH123
        os.dup2(2, 1)
        serve(sys.stdin.buffer, out)


if __name__ == "__main__":
    main()
