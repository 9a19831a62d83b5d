"""Projects in, what nothing in them needs any more out, and removed where that is wanted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from labelloop.store.projects import ProjectRecord
from labelloop.store.runs import RunStore
from labelloop.upkeep.object_kinds import ObjectKind
from labelloop.upkeep.retention import Item
from labelloop.upkeep.tidying import Tidier, last_tidied
from operations.deployment import Deployment
from operations.reporting import Report


@dataclass(frozen=True, slots=True)
class Heap:
    """Objects of one kind that share a reason."""

    what: str
    count: int
    bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class Tidying:
    """One project: what goes or went, and what stays."""

    project: str  # title
    key: str
    removed: tuple[Heap, ...]
    kept: tuple[Heap, ...]
    before: str | None  # when it was tidied last, this time left out


def tidy(deployment: Deployment, record: ProjectRecord, report: Report, *, dry_run: bool) -> Tidying:
    """Decide, and (not ``dry_run``) remove."""
    store = deployment.within(record)
    last = last_tidied(store)
    tidier = Tidier(store, deployment.registry(record), RunStore(store), record.config.retention)
    decision = tidier.decide()
    removed: Sequence[Item] = decision.remove
    if not dry_run:
        removed = tidier.tidy(report)
    return Tidying(record.title, record.key, heaps(removed), heaps(decision.keep), last.at if last else None)


def heaps(items: Iterable[Item]) -> tuple[Heap, ...]:
    """Items by kind and reason, in the order of the kinds, the largest first within each."""
    by_reason: defaultdict[tuple[ObjectKind, str], list[int]] = defaultdict(list)
    for item in items:
        by_reason[item.what, item.why].append(item.size)
    order = list(ObjectKind)
    ranked = sorted(by_reason.items(), key=lambda pair: (order.index(pair[0][0]), -sum(pair[1]), pair[0][1]))
    return tuple(Heap(what.value, len(sizes), sum(sizes), why) for (what, why), sizes in ranked)


def size_text(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
