"""The stores of a project in, its runs in short or one in full out."""

from __future__ import annotations

from functools import partial
from itertools import islice

from labelloop.errors import CorruptArtefactError, NotFoundError
from labelloop.records.runs import Run, shared
from labelloop.records.versions import Version
from labelloop.rules.revisions import revisions
from labelloop.rules.schema import LabelRules
from labelloop.rules.uncounted import Uncounted, uncounted
from labelloop.store.catalogue import Catalogue
from labelloop.store.features import FeatureIndex
from labelloop.store.projects import ProjectRecord
from labelloop.store.registry import Registry
from labelloop.store.runs import RunStore
from labelloop.studio.client import task_link
from operations.deployment import Deployment
from operations.history.run_page import Project, RunPage, TrainedRevisions, run_page, trained
from operations.history.run_rows import RunRow, evaluation_of, rows
from operations.history.snapshots import as_version, load_counting, version_named


def list_runs(
    deployment: Deployment, record: ProjectRecord, *, kind: str | None, outcome: str | None, limit: int
) -> list[RunRow]:
    """The newest runs that fit, newest first."""
    store = RunStore(deployment.within(record))
    live = deployment.registry(record).live()
    fitting = (r for r in store.newest() if kind in {None, r.kind} and outcome in {None, r.outcome})
    return rows(islice(fitting, limit), live.version if live else None, shared(store.ids()))


def find_run(deployment: Deployment, record: ProjectRecord, name: str) -> Run:
    """A run by its id, a part of it, the version it made, or `latest`; NotFoundError."""
    store = RunStore(deployment.within(record))
    if name == "latest":
        newest = next(store.newest(), None)
        if newest is None:
            raise NotFoundError(f"{record.title} has no run yet")
        return newest
    if version := as_version(deployment, record, name):
        version_named(deployment, record, version)  # one that does not exist is said as such
        return _run_of(store, version)
    return store.find(name)


def show_run(deployment: Deployment, record: ProjectRecord, run: Run, *, annotations: bool = False) -> RunPage:
    """Everything of one run; with ``annotations`` also which revisions it learned from, which reads the snapshot."""
    registry = deployment.registry(record)
    version = _version(registry, run.version)
    project = Project(record.title, registry.deployments(), registry.rollback_target())
    learned = _trained(deployment, record, run, version) if annotations else None
    return run_page(run, version, project, learned, _uncounted(deployment, record, run.snapshot))


def _uncounted(deployment: Deployment, record: ProjectRecord, snapshot: str) -> tuple[Uncounted, ...]:
    """None where the snapshot is beyond retention, or damaged."""
    try:
        tasks = load_counting(deployment, record, snapshot).tasks.values()
    except (CorruptArtefactError, NotFoundError):
        return ()
    return uncounted(tasks, record.schema, partial(task_link, deployment.settings.studio_link, record.id))


def _run_of(store: RunStore, version: str) -> Run:
    for run in store.newest():
        if run.version == version:
            return run
    raise NotFoundError(f"no run record names {version}; `labelloop models` shows what is known of it")


def _version(registry: Registry, name: str | None) -> Version | None:
    try:
        return registry.version(name) if name else None
    except (CorruptArtefactError, NotFoundError):  # the run's own record still says most of it
        return None


def _trained(
    deployment: Deployment, record: ProjectRecord, run: Run, version: Version | None
) -> TrainedRevisions | None:
    """None where the run came to no fit."""
    evaluation = version.evaluation if version else evaluation_of(run)
    if evaluation is None:
        return None
    store, registry = deployment.within(record), deployment.registry(record)
    backbone = version.backbone if version else _backbone_of(registry, run)
    index, catalogue = FeatureIndex(store, backbone or ""), Catalogue(store)
    index.update()
    catalogue.update()
    snapshot = load_counting(deployment, record, version.snapshot if version else run.snapshot)
    rules = LabelRules.of(record.config)
    classes = {rules.resolve(c) for c in (version.labels if version else evaluation.classes)} - {None}
    used = revisions(snapshot.tasks.values(), catalogue.images, index.places.keys(), classes)
    return trained(snapshot.id, used, evaluation.labels)


def _backbone_of(registry: Registry, run: Run) -> str | None:
    """A run without a version fitted on the backbone that was live when it began."""
    before = [d for d in registry.deployments() if d.at <= run.started_at]
    live = _version(registry, before[-1].version) if before else None
    initial = registry.initial_backbone()
    return live.backbone if live else initial.id if initial else None
