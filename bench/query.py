"""`python -m bench.query`: time and memory of one query.

Each strategy is asked for 100 images among 1e4, 1e5 and 1e6 (384 features, 100 classes), whose features and
probabilities lie in memory maps. Every figure is of a process of its own: the memory is its highest anonymous use above
that before the query.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from labelloop.records.arrays import Floats
from labelloop.rules.acquisition import Query, strategy

FEATURES, CLASSES, BATCH = 384, 100, 100
SIZES = (10_000, 100_000, 1_000_000)
STRATEGIES = ("uncertain-herding", "cluster-margin", "margin", "herding")
CHUNK = 50_000


def _new(path: Path, shape: tuple[int, int]) -> np.memmap[Any, np.dtype[np.float32]]:
    opened: np.memmap[Any, np.dtype[np.float32]] = np.lib.format.open_memmap(path, "w+", np.float32, shape)  # type: ignore[no-untyped-call]
    return opened


def made(folder: Path, size: int) -> tuple[Floats, Floats]:
    """Features in clusters and the probabilities of a head that is right about them mostly, as memory maps."""
    paths = [folder / f"{what}-{size}.npy" for what in ("features", "probabilities")]
    if not paths[1].exists():
        rng = np.random.default_rng(0)
        centres = rng.normal(size=(CLASSES, FEATURES)).astype(np.float32)
        shapes = ((size, FEATURES), (size, CLASSES))
        maps = [_new(p, s) for p, s in zip(paths, shapes, strict=True)]
        for begin in range(0, size, CHUNK):
            count = min(CHUNK, size - begin)
            rows = centres[rng.integers(0, CLASSES, count)] + 1.5 * rng.normal(size=(count, FEATURES))
            logits = (rows @ centres.T / 40).astype(np.float32)
            exp = np.exp(logits - logits.max(axis=1, keepdims=True))
            maps[0][begin : begin + count] = rows
            maps[1][begin : begin + count] = exp / exp.sum(axis=1, keepdims=True)
        for one in maps:
            one.flush()
    return np.load(paths[0], mmap_mode="r"), np.load(paths[1], mmap_mode="r")


def anonymous_mb() -> float:
    """Anonymous memory of this process."""
    status = Path("/proc/self/status").read_text()
    return float(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))) / 1024


def measured(what: Callable[[], object]) -> dict[str, float]:
    """Seconds of the faster of two tries, and the memory of the first."""
    before, top, stop = anonymous_mb(), [anonymous_mb()], threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            top[0] = max(top[0], anonymous_mb())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    seconds = []
    for attempt in range(2):
        began = time.perf_counter()
        what()
        seconds.append(time.perf_counter() - began)
        if not attempt:
            stop.set()
            watcher.join()
            if seconds[0] > 20:
                break
    return {"seconds": min(seconds), "mb": top[0] - before, "all_mb": top[0]}


def one(what: str, folder: Path, size: int) -> dict[str, float]:
    """One figure, in this process."""
    features, probabilities = made(folder, size)
    labelled = np.array(features[:200])
    query = Query(size, lambda rows: features[rows], probabilities, labelled, np.arange(200) % CLASSES, BATCH)
    return measured(lambda: strategy(what).order(query, BATCH))


def asked_of_a_process(what: str, folder: Path, size: int) -> dict[str, float]:
    """One figure, in a process of its own."""
    command = [sys.executable, "-m", "bench.query", "--one", what, "--size", str(size), "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, default=SIZES[0], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="where the maps lie, 2.1 GB; else a temporary one")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.folder, given.size)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        for size in SIZES:
            made(folder, size)
        _by_size(folder)


def _by_size(folder: Path) -> None:
    table = Table("strategy", *(f"{n:,}" for n in SIZES), "exponent", title=f"{BATCH} images: seconds, anonymous MB")
    for name in STRATEGIES:
        found = [asked_of_a_process(name, folder, size) for size in SIZES]
        slope = math.log(found[-1]["seconds"] / found[0]["seconds"]) / math.log(SIZES[-1] / SIZES[0])
        table.add_row(name, *(f"{f['seconds']:.3f} s, {f['mb']:.0f}" for f in found), f"{slope:.2f}")
        print(json.dumps({"bench": "query", "strategy": name, "sizes": SIZES, "found": found, "exponent": slope}))
    Console().print(table)


if __name__ == "__main__":
    main()
