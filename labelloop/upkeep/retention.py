"""What a project keeps of its past, and why; what may go, and why. Pure: it reads no store and removes nothing.

Mark and sweep: `mark` follows the references from what must stay, `sweep` says of every object whether it is reached.
Nothing that is younger than a day is ever removed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from labelloop.clock import parse
from labelloop.config.project import Retention
from labelloop.records.runs import Run
from labelloop.records.versions import COLD_START, LogEntry, Version, way_back
from labelloop.upkeep.object_kinds import ObjectKind, StoredObject

EVERY = timedelta(days=1)  # how often a project is tidied
GENERATIONS = 2  # backbones whose features are kept: the champion's and the one before
NEW = "younger than a day"
STILL = "still there"
Reasons = Mapping[str, str]  # name of what stays -> why


@dataclass(frozen=True, slots=True)
class References:
    """All that names something else, read whole."""

    versions: Sequence[Version]
    deployments: Sequence[LogEntry]  # oldest first
    backbones: Mapping[str, str | None]  # id -> the snapshot that it was fine-tuned on
    initial: str | None  # the backbone that the project began with
    runs: Sequence[Run]
    latest: str | None  # the newest snapshot
    searches: Sequence[str] = ()  # snapshots of searches that have trials left


@dataclass(frozen=True, slots=True)
class Retained:
    """What stays, by name, and why."""

    versions: Reasons
    backbones: Reasons
    features: Reasons  # backbones whose features stay
    snapshots: Reasons
    runs: Reasons


@dataclass(frozen=True, slots=True)
class Contents:
    """What those that stay are made of."""

    heads: Collection[str]  # keys, of the versions
    shards: Collection[str]  # of the snapshots
    rows: Mapping[str, Collection[str]]  # backbone -> its feature shards with the newest row of some image


@dataclass(frozen=True, slots=True)
class Item:
    """One object and what becomes of it."""

    key: str
    size: int
    what: ObjectKind
    why: str


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """Every object of the project, once."""

    keep: tuple[Item, ...]
    remove: tuple[Item, ...]


def is_due(last: str | None, created: int, now: datetime) -> bool:
    """Whether to tidy, by when it was last done; a project that was just created (unix seconds) has nothing old."""
    return now - (parse(last) if last else datetime.fromtimestamp(created, UTC)) >= EVERY


# --- mark


def mark(
    refs: References,
    objects: Sequence[StoredObject],
    policy: Retention,
    now: datetime,
    *,
    settled: Collection[ObjectKind] = (),
) -> Retained:
    """What must stay: the newest, the live and the young, and what they name.

    ``settled``: kinds whose remaining objects all stay: what goes was decided before.
    """
    young = _names(held for held in objects if held.is_young(now))
    there = _names(held for held in objects if held.what in settled)
    versions = dict.fromkeys(there[ObjectKind.VERSION], STILL) | kept_versions(
        refs, young[ObjectKind.VERSION], policy, now
    )
    fresh = dict.fromkeys([*young[ObjectKind.BACKBONE], *young[ObjectKind.WEIGHTS]], NEW)  # a retrain works with them
    backbones = dict.fromkeys(there[ObjectKind.BACKBONE], STILL) | fresh | _backbones(refs, versions)
    snapshots = dict.fromkeys(there[ObjectKind.SNAPSHOT], STILL) | dict.fromkeys(young[ObjectKind.SNAPSHOT], NEW)
    snapshots |= _snapshots(refs, versions, backbones, policy, now)
    features = dict.fromkeys(there[ObjectKind.INDEX], STILL) | fresh | _features(refs)
    return Retained(versions, backbones, features, snapshots, _runs(refs.runs, versions, policy, now))


def _names(objects: Iterable[StoredObject]) -> Mapping[ObjectKind, Collection[str]]:
    names: dict[ObjectKind, set[str]] = {what: set() for what in ObjectKind}
    for held in objects:
        if held.names:
            names[held.what].add(held.name)
    return names


def kept_versions(refs: References, young: Iterable[str], policy: Retention, now: datetime) -> dict[str, str]:
    """Versions that stay. ``young``: those whose record is."""
    versions = {v.name: v for v in refs.versions}
    reasons: dict[str, str] = {}
    for name, why in _reasons_to_keep(refs, young, policy, now):
        for one, reason in _with_references(name, why, versions):
            reasons.setdefault(one, reason)
    return reasons


def _reasons_to_keep(
    refs: References, young: Iterable[str], policy: Retention, now: datetime
) -> Iterable[tuple[str, str]]:
    back = way_back(refs.deployments)
    yield from ((name, "live") for name in back[-1:])
    yield from ((name, "a rollback goes back to it") for name in back[-2:-1])
    newest = sorted(refs.versions, key=lambda v: v.number)[-policy.versions :]
    yield from ((v.name, f"one of the newest {policy.versions}") for v in newest)
    for days in sorted({policy.days, policy.log_days}):
        since = now - timedelta(days=days)
        yield from ((name, f"live within the last {days} days") for name in live_since(refs.deployments, since))
    named = [d for d in refs.deployments if parse(d.at) >= now - timedelta(days=policy.log_days)]
    why = f"named by the deployment log of the last {policy.log_days} days"
    yield from ((name, why) for d in named for name in (d.version, d.previous) if name)
    yield from ((name, NEW) for name in young)


def _with_references(name: str, why: str, versions: Mapping[str, Version]) -> Iterable[tuple[str, str]]:
    """A version and, since it may be live again, the one that its successors are judged against then."""
    seen: set[str] = set()
    while name in versions and name not in seen:
        yield name, why
        seen.add(name)
        why, name = f"the reference of {name}", versions[name].reference or ""


def live_since(log: Sequence[LogEntry], since: datetime) -> list[str]:
    """Versions that were live at some time since."""
    ends = [parse(d.at) for d in log[1:]]
    return [d.version for i, d in enumerate(log) if i == len(ends) or ends[i] >= since]


def _backbones(refs: References, versions: Reasons) -> dict[str, str]:
    reasons = {refs.initial: "the project began with it: a retrain starts from it"} if refs.initial else {}
    for version in refs.versions:
        if version.name in versions:
            reasons.setdefault(version.backbone, f"of {version.name}, which is kept")
    return reasons


def _features(refs: References) -> dict[str, str]:
    """Features are large, and can be computed again: those of two generations, and of a candidate for the next."""
    of = {v.name: v.backbone for v in refs.versions}
    served = list(dict.fromkeys(of[d.version] for d in reversed(refs.deployments) if d.version in of))
    if not served and refs.initial:
        served = [refs.initial]
    reasons = dict.fromkeys(served[:GENERATIONS], f"one of the last {GENERATIONS} backbones that served")
    if refs.versions:
        newest = max(refs.versions, key=lambda v: v.number)
        reasons.setdefault(newest.backbone, f"of {newest.name}, which may be promoted")
    return reasons


def _snapshots(
    refs: References, versions: Reasons, backbones: Reasons, policy: Retention, now: datetime
) -> dict[str, str]:
    reasons = {refs.latest: "the newest"} if refs.latest else {}
    for version in refs.versions:
        if version.name in versions:
            reasons.setdefault(version.snapshot, f"of {version.name}, which is kept")
    for name, snapshot in refs.backbones.items():
        if name in backbones and snapshot:
            reasons.setdefault(snapshot, f"backbone {name} was fine-tuned on it")
    reasons |= dict.fromkeys(set(refs.searches) - reasons.keys(), "a search has trials left")
    since = now - timedelta(days=policy.days)
    for run in refs.runs:
        if run.outcome == "running" or parse(run.started_at) >= since:
            reasons.setdefault(run.snapshot, f"of a run of the last {policy.days} days")
    for run in _last_judged(refs.runs):  # what has changed since is counted from here
        reasons.setdefault(run.snapshot, f"of the last {run.kind} that was judged")
    return reasons


def _runs(runs: Sequence[Run], versions: Reasons, policy: Retention, now: datetime) -> dict[str, str]:
    reasons = {run.id: f"the last {run.kind} that was judged" for run in _last_judged(runs)}
    since = now - timedelta(days=policy.log_days)
    for run in runs:
        if run.version in versions:
            reasons.setdefault(run.id, f"it made {run.version}, which is kept")
        if run.outcome == "running" or parse(run.started_at) >= since:
            reasons.setdefault(run.id, f"of the last {policy.log_days} days")
    return reasons


def _last_judged(runs: Sequence[Run]) -> list[Run]:
    """Of each kind, under each config: what is due is derived from it, however old it is."""
    return list({(r.kind, r.config): r for r in sorted(runs, key=lambda r: r.id) if r.done}.values())


# --- sweep

_WHY_REMOVED = {
    ObjectKind.VERSION: "neither among the newest nor live for a long time",
    ObjectKind.RUN: "ended long ago",
    ObjectKind.SNAPSHOT: "neither a kept version nor a recent run names it",
    ObjectKind.BACKBONE: "no kept version needs it",
    ObjectKind.WEIGHTS: "no kept version needs them",
    ObjectKind.HEAD: "no kept version names it",
    ObjectKind.SHARD: "no kept snapshot names it",
    ObjectKind.REPORT: "its version is not kept",
    ObjectKind.CHECKPOINT: "of a run that has not continued for a day",
}


def sweep(objects: Sequence[StoredObject], kept: Retained, contents: Contents, now: datetime) -> SweepPlan:
    """Keep or remove, each object."""
    view = _View(kept, contents, _newest_orders(objects), {o.names for o in objects if o.what is ObjectKind.INDEX})
    keep: list[Item] = []
    remove: list[Item] = []
    for held in objects:
        reached, why = view.judge(held)
        young = held.is_young(now)
        item = Item(held.info.key, held.info.size, held.what, NEW if young and not reached else why)
        (keep if reached or young else remove).append(item)
    return SweepPlan(tuple(keep), tuple(remove))


@dataclass(frozen=True, slots=True)
class _View:
    kept: Retained
    contents: Contents
    orders: Mapping[str, str]  # version -> its newest order
    indexed: Collection[tuple[str, ...]]  # (backbone, shard) of every feature index

    def judge(self, held: StoredObject) -> tuple[bool, str]:
        """(whether it is reached, why or why not)."""
        if held.what is ObjectKind.CHECKPOINT:  # written again after every epoch: one in use is young
            return False, _WHY_REMOVED[held.what]
        if held.what is ObjectKind.SCORES:
            return self._order(*held.names)
        if held.what in {ObjectKind.INDEX, ObjectKind.ROWS}:
            return self._features(held)
        if held.what in {ObjectKind.HEAD, ObjectKind.SHARD}:
            reached = held.info.key in self.contents.heads or held.name in self.contents.shards
            return reached, "named" if reached else _WHY_REMOVED[held.what]
        reasons = {
            ObjectKind.VERSION: self.kept.versions,
            ObjectKind.REPORT: self.kept.versions,
            ObjectKind.RUN: self.kept.runs,
            ObjectKind.SNAPSHOT: self.kept.snapshots,
            ObjectKind.BACKBONE: self.kept.backbones,
            ObjectKind.WEIGHTS: self.kept.backbones,
        }.get(held.what)
        if reasons is None:
            return True, "never removed"
        return held.name in reasons, reasons.get(held.name, _WHY_REMOVED[held.what])

    def _order(self, version: str, order: str) -> tuple[bool, str]:
        if version != COLD_START and version not in self.kept.versions:
            return False, "its version is not kept"
        newest = self.orders[version] == order
        return newest, "the newest of its version" if newest else "its version has a newer one"

    def _features(self, held: StoredObject) -> tuple[bool, str]:
        backbone, shard = held.names
        if backbone not in self.kept.features:
            return False, "of an older backbone; recomputed when needed"
        if held.what is ObjectKind.ROWS and held.names not in self.indexed:
            return False, "half-written: nothing names them"
        if shard not in self.contents.rows.get(backbone, ()):
            return False, "each row was replaced by a newer one"
        return True, self.kept.features[backbone]


def _newest_orders(objects: Iterable[StoredObject]) -> dict[str, str]:
    newest: dict[str, str] = {}
    for held in objects:
        if held.what is ObjectKind.SCORES:
            version, order = held.names
            newest[version] = max(order, newest.get(version, ""))
    return newest
