"""Answers of simulated people, in memory: what was before them, and what they did."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from labelloop.clock import LABEL_STUDIO_FORMAT
from labelloop.records.tasks import Annotation, Seen, Task
from labelloop.rules.value import Look, Showing

MORNING = datetime(2026, 3, 1, 8, tzinfo=UTC)
Person = Callable[[random.Random, bool, bool], bool]  # (chance, is the model right, is it shown) -> departs


def looks_like_one(chance: random.Random, right: bool, shown: bool) -> bool:
    """Slips on 4 %, lets a tenth of the wrong pre-labels pass."""
    if shown:
        return not right and chance.random() >= 0.1
    return not right or chance.random() < 0.04


def never_looks(chance: random.Random, right: bool, shown: bool) -> bool:
    """Half right where there is nothing to accept."""
    return not shown and (not right or chance.random() < 0.5)


def stream(
    person: Person, number: int, *, seed: int = 0, right: float = 0.6, first: int = 0, blind: float = 0.05,
    overstated: float = 1.0,
) -> list[Look]:  # fmt: skip
    """So many looks: every tenth drawn at random. ``overstated``: errors that the model expects for each it makes."""
    chance = random.Random(seed)
    found = []
    for i in range(first, first + number):
        kind = Showing.DRAWN if i % 10 == 9 else Showing.HIDDEN if chance.random() < blind else Showing.SHOWN
        wrong = (1 - right) * (0.4 if kind is Showing.DRAWN else 1.0) * chance.uniform(0.5, 1.5)
        departs = person(chance, chance.random() >= wrong, kind is Showing.SHOWN)
        said = "dog" if departs else "cat"
        probability = max(0.0, 1 - wrong * overstated)
        found.append(Look(i, 7, at(i), kind, "cat", probability, said, departs))
    return found


def at(number: int) -> str:
    """The time of an answer: one every ten seconds."""
    return (MORNING + timedelta(seconds=10 * number)).strftime(LABEL_STUDIO_FORMAT)


def task(number: int, label: str | None, seen: Seen | None, *, by: int = 7, **more: Any) -> Task:
    """One task with one answer."""
    return Task(number, f"s3://images/t/{number}.png", at(number), (answer(number, label, seen, by=by, **more),))


def answer(number: int, label: str | None, seen: Seen | None = None, *, by: int = 7, **more: Any) -> Annotation:
    return Annotation(number, at(number), at(number), label, completed_by=by, seen=seen, **more)


def tasks_of(looks: list[Look], *, first: int = 1, by: int = 7, seconds: float | None = None) -> Iterator[Task]:
    """As Label Studio would have them."""
    for i, look in enumerate(looks):
        blind = look.kind is not Showing.SHOWN
        seen = Seen("v1", look.predicted, blind, look.probability, look.kind is Showing.HIDDEN)
        yield task(first + i, look.said, seen, by=by, lead_time_s=seconds)
