"""A seed in, what the people do and what breaks out. Pure: the same seed gives the same schedule."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

SERVICES = ("sync", "refresh", "features", "train", "ml_backend", "valkey", "s3", "label_studio")
OURS = ("sync", "refresh", "features", "train", "ml_backend")
LINKS = ("s3", "valkey", "label_studio")
HTTP = ("s3", "label_studio")
ACTIONS = {  # what a person does, and how often
    "create": 0.60, "change": 0.12, "skip": 0.06, "unskip": 0.02, "delete": 0.08, "delete_task": 0.03,
    "import_labelled": 0.04, "upload_images": 0.02, "retrain": 0.01, "look": 0.02,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """Something breaks when the people have done ``at`` actions, and is whole again ``lasts_s`` later."""

    at: int
    kind: str  # kill | freeze | disk | clock | flush | cut | hang | slow | truncate | errors
    where: str  # a service or a link
    lasts_s: float = 0.0  # kill and flush: a moment

    def __str__(self) -> str:
        return f"{self.kind} {self.where}" + (f" {self.lasts_s:.0f} s" if self.lasts_s else "")


@dataclass(frozen=True, slots=True)
class Schedule:
    """One run of the harness."""

    seed: int
    actions: tuple[str, ...]
    faults: tuple[Fault, ...]


SINGLE: Sequence[tuple[str, str, float]] = [
    *(("kill", s, 0.0) for s in SERVICES),
    *(("freeze", s, 6.0) for s in SERVICES),
    ("flush", "valkey", 0.0),
    *(("cut", x, 8.0) for x in LINKS),
    *(("hang", x, 8.0) for x in LINKS),
    *(("slow", x, 8.0) for x in LINKS),
    *(("truncate", x, 8.0) for x in LINKS),
    *(("errors", x, 8.0) for x in HTTP),
    *(("clock", s, 0.0) for s in OURS),
    *(("disk", s, 6.0) for s in (*OURS, "s3", "label_studio")),
]


def make_schedule(seed: int, actions: int) -> Schedule:
    """The first seeds break one thing each, so that every fault has a figure of its own; the others several."""
    source = random.Random(f"schedule:{seed}")
    names, weights = list(ACTIONS), list(ACTIONS.values())
    done = tuple(source.choices(names, weights, k=actions))
    if seed < len(SINGLE):
        kind, where, lasts = SINGLE[seed]
        return Schedule(seed, done, (Fault(actions // 3, kind, where, lasts),))
    faults = [_fault(source, actions) for _ in range(source.randint(3, 7))]
    if source.random() < 0.5:  # all at once
        moment = source.randrange(actions // 4, 3 * actions // 4)
        faults = [Fault(moment, f.kind, f.where, f.lasts_s) for f in faults]
    return Schedule(seed, done, tuple(sorted(faults, key=lambda f: f.at)))


def _fault(source: random.Random, actions: int) -> Fault:
    kind, where, lasts = source.choice(SINGLE)
    return Fault(source.randrange(5, actions), kind, where, round(lasts * source.uniform(0.3, 1.5), 1))
