"""Names of snapshots in, what lies behind them out: the list, one of them, or what happened between two."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from labelloop.errors import NotFoundError
from labelloop.records.runs import Run
from labelloop.records.snapshots import Snapshot
from labelloop.records.versions import Version
from labelloop.rules.schema import LabelRules
from labelloop.rules.snapshot_diff import SnapshotDiff, diff
from labelloop.store.projects import ProjectRecord
from labelloop.store.runs import RunStore
from labelloop.store.snapshots import SnapshotStore
from operations.deployment import Deployment

MANIFESTS = "snapshots/manifests/"
LATEST = "latest"
SHORT = 12  # letters of an id that are shown: as in run records and job ids
LOOKED_BACK = 512  # runs whose snapshots are marked


@dataclass(frozen=True, slots=True)
class Counts:
    """What a snapshot holds."""

    labelled: int  # tasks with a class that counts
    skipped: int
    annotations: int


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """One snapshot in short."""

    id: str
    at: str | None  # when it was frozen; None: only named, no longer kept
    latest: bool
    versions: tuple[str, ...]  # whose head was fitted on it
    runs: tuple[str, ...]  # kind and outcome of each run on it
    counts: Counts | None = None
    more: int | None = None  # labelled tasks more than in the row below


@dataclass(frozen=True, slots=True)
class Between:
    """Two snapshots and what happened between them."""

    before: str
    after: str
    diff: SnapshotDiff


def list_snapshots(
    deployment: Deployment, record: ProjectRecord, *, limit: int, used: bool = False, count: bool = True
) -> list[SnapshotRow]:
    """The newest snapshots, newest first; ``used``: only those that a run or a version names."""
    store = deployment.within(record)
    snapshots = SnapshotStore(store)
    kept = {i.key.removeprefix(MANIFESTS).removesuffix(".json"): f"{i.modified:%Y-%m-%dT%H:%M:%SZ}"
            for i in store.list(MANIFESTS)}  # fmt: skip
    latest = snapshots.latest()
    runs = list(islice(RunStore(store).newest(), LOOKED_BACK))
    rows = snapshot_rows(kept, latest.snapshot if latest else None, deployment.registry(record).versions(), runs)
    shown = [r for r in rows if not used or r.versions or r.runs][:limit]
    return _counted(snapshots, shown) if count else shown


def snapshot_rows(
    kept: Mapping[str, str], latest: str | None, versions: Sequence[Version], runs: Sequence[Run]
) -> list[SnapshotRow]:
    """Every snapshot that is kept (id -> when it was frozen) or only named, newest first. Pure."""
    named = dict.fromkeys([*kept, *(v.snapshot for v in versions), *(r.snapshot for r in runs)])
    rows = [
        SnapshotRow(
            name, kept.get(name), name == latest, tuple(v.name for v in versions if v.snapshot == name),
            tuple(f"{r.kind} {r.outcome}" for r in reversed(runs) if r.snapshot == name),
        )
        for name in named
    ]  # fmt: skip
    return sorted(rows, key=lambda r: (r.at or "", r.latest), reverse=True)


def between(deployment: Deployment, record: ProjectRecord, before: str, after: str) -> Between:
    """What turned one snapshot into another: classes as people gave them."""
    store = SnapshotStore(deployment.within(record))
    old, new = resolve(deployment, record, before), resolve(deployment, record, after)
    return Between(old, new, diff(load(store, old).tasks, load(store, new).tasks))


def resolve(deployment: Deployment, record: ProjectRecord, name: str) -> str:
    """The id that ``name`` means: `latest`, a version, or the beginning of an id; NotFoundError."""
    store = deployment.within(record)
    if name == LATEST:
        latest = SnapshotStore(store).latest()
        if latest is None:
            raise NotFoundError(f"{record.title} has no snapshot yet: nothing is labelled, or sync is not running")
        return latest.snapshot
    if version := as_version(deployment, record, name):
        return version_named(deployment, record, version).snapshot
    ids = (i.key.removeprefix(MANIFESTS).removesuffix(".json") for i in store.list(f"{MANIFESTS}{name}"))
    return one_of(name, ids)


def version_named(deployment: Deployment, record: ProjectRecord, name: str) -> Version:
    """One version; NotFoundError in words where there is none."""
    return deployment.version(record, name)


def as_version(deployment: Deployment, record: ProjectRecord, name: str) -> str | None:
    """The version that ``name`` means, as `v7`, or as `7` where there is one; None where it means something else."""
    match = re.fullmatch(r"([vV]?)0*([0-9]{1,9})", name.strip())
    if match is None:
        return None
    version = f"v{int(match.group(2))}"
    if match.group(1):
        return version
    return version if version in {v.name for v in deployment.registry(record).versions()} else None


def one_of(name: str, ids: Iterable[str]) -> str:
    """The one id that begins with ``name``; NotFoundError says what else there is."""
    matches = sorted(i for i in ids if name and i.startswith(name))
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise NotFoundError(f"no snapshot is called {name!r}; `labelloop snapshots` lists them")
    raise NotFoundError(f"{len(matches)} snapshots begin with {name!r}, e.g. {', '.join(i[:20] for i in matches[:3])}")


def load(store: SnapshotStore, name: str) -> Snapshot:
    """One snapshot as people gave it; NotFoundError where it is no longer kept."""
    try:
        return store.load(name)
    except NotFoundError as error:
        raise NotFoundError(
            f"snapshot {name[:SHORT]} is no longer kept, or a part of it is gone ({error}); `labelloop snapshots` "
            "lists those that are"
        ) from error


def load_counting(deployment: Deployment, record: ProjectRecord, name: str) -> Snapshot:
    """One snapshot with classes as they count under the project's config of today."""
    snapshot = load(SnapshotStore(deployment.within(record)), name)
    return LabelRules.of(record.config).read(snapshot)


def counts_of(snapshot: Snapshot) -> Counts:
    """How much a snapshot holds."""
    tasks = snapshot.tasks.values()
    return Counts(
        sum(t.label is not None for t in tasks), sum(t.skipped for t in tasks), sum(len(t.annotations) for t in tasks)
    )


def _counted(snapshots: SnapshotStore, shown: Sequence[SnapshotRow]) -> list[SnapshotRow]:
    """Oldest first: the store keeps the shards that two neighbours share."""
    rows: list[SnapshotRow] = []
    before: Counts | None = None
    for row in reversed(shown):
        counts = None
        if row.at is not None:
            counts = counts_of(load(snapshots, row.id))
        more = counts.labelled - before.labelled if counts and before else None
        rows.append(replace(row, counts=counts, more=more))
        before = counts or before
    return rows[::-1]
