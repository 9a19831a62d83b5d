"""`python -m bench.faults.hostile_images`: thousands of mutated images through the decode path.

Prints how many were read, refused or raised anything else, the slowest, and the most memory that the process and its
helpers held. Images of `LABELLOOP_DATA` are taken where there are any, else drawn ones.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from bench.tools.memory import Peak
from labelloop.config.settings import data_dir
from labelloop.decoding.endings import SUFFIXES
from labelloop.decoding.square import Square, decode
from labelloop.errors import ImageUnreadableError
from tests.hostile.mutants import mutants, originals
from tests.hostile.worst import WORST

SIDE = 160  # of the originals: mutated headers decide what is declared
PICTURES = 8


@dataclass
class Seen:
    """What came of them."""

    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    slowest: list[tuple[float, str]] = field(default_factory=list)

    def take(self, name: str, outcome: str, why: str, seconds: float) -> None:
        self.outcomes[outcome] += 1
        self.reasons[why[:60]] += bool(why)
        if outcome == "raised":
            self.unexpected.append(f"{name}: {why}")
        self.slowest = sorted([*self.slowest, (seconds, name)], reverse=True)[:5]


def pictures(seed: int) -> list[Image.Image]:
    """A few real photographs, or drawn ones."""
    folder = data_dir()
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES) if folder else []
    if not files:
        draw = np.random.default_rng(seed)
        small = [draw.integers(0, 255, (12, 16, 3), dtype=np.uint8) for _ in range(PICTURES)]
        return [Image.fromarray(s).resize((SIDE, SIDE * 3 // 4)) for s in small]
    found = [Image.open(path).convert("RGB") for path in random.Random(seed).sample(files, PICTURES)]
    for image in found:
        image.thumbnail((SIDE, SIDE))
    return found


def tried(item: tuple[str, bytes]) -> tuple[str, str, str, float]:
    """(name, read | refused | raised, why, seconds)."""
    name, data = item
    began = time.perf_counter()
    try:
        shape = decode(data, Square(64)).shape
        outcome, why = ("read", "") if shape == (3, 64, 64) else ("raised", f"shape {shape}")
    except ImageUnreadableError as error:
        outcome, why = "refused", str(error)
    except Exception as error:  # what is looked for
        outcome, why = "raised", f"{type(error).__name__}: {error}"
    return name, outcome, why, time.perf_counter() - began


def run(items: Iterable[tuple[str, bytes]], threads: int) -> Seen:
    """In some threads, a few ahead: the mutants must not all be in memory."""
    seen = Seen()
    with ThreadPoolExecutor(threads) as pool:
        for part in _parts(items, 8 * threads):
            for result in pool.map(tried, part):
                seen.take(*result)
    return seen


def _parts(items: Iterable[tuple[str, bytes]], size: int) -> Iterator[list[tuple[str, bytes]]]:
    part: list[tuple[str, bytes]] = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    yield part


def told(what: str, seen: Seen, peak: Peak, before: int) -> None:
    """For people, and one line for machines."""
    figures = {
        "images": what, **seen.outcomes, "raised": len(seen.unexpected), "peak_mb": peak.most // 10**6,
        "before_mb": before // 10**6, "slowest_s": round(seen.slowest[0][0], 2),
    }  # fmt: skip
    print(f"{what}: {dict(seen.outcomes)}; memory {before // 10**6} MB before, {peak.most // 10**6} MB at most")
    print("  slowest: " + ", ".join(f"{name} {seconds:.2f} s" for seconds, name in seen.slowest))
    for why, count in seen.reasons.most_common(8):
        print(f"  {count:>6} {why}")
    for line in seen.unexpected[:20]:
        print(f"  RAISED {line}")
    print(json.dumps(figures))


def main() -> None:
    """Exit code 1 where anything was raised that is no refusal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=4)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # Pillow's, of broken files
    good, bad = originals(pictures(asked.seed)), 0
    broken = ((f"mutant {i}", data) for i, data in enumerate(mutants(good, asked.count, asked.seed)))
    with Peak(os.getpid()) as peak:
        before = peak.last
        seen = run(broken, asked.threads)
    told("mutated", seen, peak, before)
    bad += len(seen.unexpected)
    for name, make in WORST.items():
        data = make()  # making it costs more than decoding it may
        with Peak(os.getpid()) as peak:
            before = peak.last
            seen = run([(name, data)], 1)
        told(name, seen, peak, before)
        bad += len(seen.unexpected)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
