"""Which small shards are worth being made one large one. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from labelloop.clock import parse

LARGE = 4096  # entries of a shard that is merged no further
FEWEST = 16  # small shards that are worth the work
REST = timedelta(minutes=6)  # younger ones are left alone: a slow clock's may still come before them
KEPT = timedelta(minutes=30)  # so long what was replaced is still there, for those who have just listed it

_STAMP = re.compile(r"\d{8}T\d{6}")


@dataclass(frozen=True, slots=True)
class Replaced:
    """The small shards that a large one was made of."""

    shards: tuple[str, ...]
    made_at: str


def mergeable(sizes: Mapping[str, int], now: datetime) -> list[str]:
    """The oldest small shards (name -> entries) that together make at most one large; none where they are few.

    Names are those of `labelloop.clock.stamp`; others stay as they are.
    """
    until = f"{(now - REST).astimezone(UTC):%Y%m%dT%H%M%S}"
    chosen: list[str] = []
    total = 0
    for name in sorted(sizes):
        if not _STAMP.match(name) or name >= until or sizes[name] > LARGE // 2:
            continue
        if total + sizes[name] > LARGE:
            return chosen
        chosen.append(name)
        total += sizes[name]
    return chosen if len(chosen) >= FEWEST and total >= LARGE // 2 else []


def droppable(replaced: Mapping[str, Replaced], there: Collection[str], now: datetime) -> list[str]:
    """Small shards that are still there although they were replaced long enough ago."""
    old = [r for r in replaced.values() if now - parse(r.made_at) > KEPT]
    return [shard for r in old for shard in r.shards if shard in there]


def merged_name(replaced: list[str], digest: str) -> str:
    """Sorts right behind the newest of those that it replaces; the same for the same ones, by any process."""
    return f"{max(replaced)}-{digest[:8]}"
