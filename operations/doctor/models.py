"""What a project has learned: the champion intact, runs that come to an end, features for every image."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from labelloop.config.networks import BY_CONFIG, CPU_RATE, NETWORKS, PIXEL_SIDE, PIXELS, are_tiny
from labelloop.errors import CorruptArtefactError, CorruptObjectError, NotFoundError
from labelloop.queue.heartbeat import alive
from labelloop.queue.jobs import FEATURISE, JobState
from labelloop.records.json import digest
from labelloop.records.runs import Run
from labelloop.records.versions import BackboneRecord
from labelloop.remedies import BACKUP, remedy_of
from labelloop.rules.attempts import failed_tries
from labelloop.rules.trigger import ATTEMPTS
from labelloop.store.projects import ProjectRecord
from labelloop.store.registry import Registry
from labelloop.store.requests import Request, RequestStore, retries
from operations.damaged import DamagedObject, damaged_artefacts, damaged_objects, damaged_records
from operations.doctor import queue, storage
from operations.doctor.checks import DoctorCheck
from operations.doctor.finding import Finding, fine, warn, wrong
from operations.doctor.project import area_of
from operations.doctor.scene import Scene
from operations.network import sides

NAMED = 10
OBJECTS_S = 120.0  # every record is read
WEIGHTS_S = 120.0  # a large backbone is read whole
AGAIN_S = 3.0  # between two looks at the pool


def of_project(scene: Scene, record: ProjectRecord) -> list[DoctorCheck]:
    """All of one project's."""
    area, needs = area_of(record), (storage.REACHED,)
    registry = scene.registry(record)
    return [
        DoctorCheck(area, "champion", lambda: champion(registry), needs),
        DoctorCheck(area, "backbone", lambda: backbone(registry), needs, limit_s=WEIGHTS_S),
        DoctorCheck(area, "network", lambda: network(record, sides(scene.deployment, record.image_uri)), needs),
        DoctorCheck(area, "runs", lambda: _runs(scene, record), needs),
        DoctorCheck(area, "features", lambda: _features(scene, record), (*needs, queue.REACHED)),
        DoctorCheck(area, "kept objects", lambda: objects(scene, record), needs, limit_s=OBJECTS_S),
        DoctorCheck(area, "features intact", lambda: artefacts(scene, record), needs, limit_s=WEIGHTS_S),
    ]


def checks(scene: Scene) -> list[DoctorCheck]:
    """Of all projects: one whose record cannot be read has no checks of its own."""
    return [DoctorCheck(storage.AREA, "project records", lambda: records(scene), (storage.REACHED,))]


def records(scene: Scene) -> list[Finding]:
    """Every record."""
    scene.records()
    damaged = damaged_records(scene.deployment)
    return _damage("project records", damaged, "all can be read", wrong)


def objects(scene: Scene, record: ProjectRecord) -> list[Finding]:
    """Every record of one project, read as the services read it."""
    return _damage("kept objects", damaged_objects(scene.deployment, record), "all can be read", warn)


def artefacts(scene: Scene, record: ProjectRecord) -> list[Finding]:
    """What records name by its hash: weights, rows of features."""
    damaged, size, left = damaged_artefacts(scene.deployment, record)
    rest = f"; {left} older shards of features were not read" if left else ""
    return _damage(
        "features intact", damaged, f"{size / 1e6:.0f} MB of weights and features are as recorded{rest}", warn
    )


def _damage(
    what: str, damaged: Sequence[DamagedObject], well: str, level: Callable[[str, str, str], Finding]
) -> list[Finding]:  # fmt: skip
    if not damaged:
        return [fine(what, well)]
    named = [level(what, f"{item.key}: {item.reason}", item.remedy) for item in damaged[:NAMED]]
    more = len(damaged) - NAMED
    rest = [level(what, f"{more} more", "`labelloop gc --damaged --dry-run` lists them")] if more > 0 else []
    return named + rest


def champion(registry: Registry) -> Finding:
    """Its bytes have the recorded hash, and it gives the outputs that were stored with it."""
    log = registry.deployments()
    if not log:
        return fine("champion", "no model yet")
    live = log[-1]
    try:
        head = registry.head(registry.version(live.version))
    except (CorruptArtefactError, NotFoundError, ValueError, TypeError, KeyError) as error:
        return wrong("champion", f"{live.version} is damaged: {_in_short(error)}", "`labelloop rollback`, or promote "
                     f"another version; the next refresh replaces it, too; {BACKUP}")  # fmt: skip
    return fine("champion", f"{live.version} is intact, {len(head.labels)} classes")


def backbone(registry: Registry) -> Finding:
    """Without its weights nothing new can be featurised, and no backend can start."""
    record: BackboneRecord | None = None
    try:
        record = registry.current_backbone()
        if record is None:
            return fine("backbone", "none yet: created with the first image")
        weights = registry.backbone_weights(record)
    except (CorruptArtefactError, NotFoundError) as error:
        name = record.id if record else "its record"
        return wrong("backbone", f"{name} is damaged or gone: {_in_short(error)}", _way_out(error))
    return fine("backbone", f"{record.id} is intact, {len(weights) / 1e6:.1f} MB, {digest(weights)[:8]}")


def _in_short(error: Exception) -> str:
    """Without the way out, which the finding names by itself."""
    return f"{error.key}: {error.reason}" if isinstance(error, CorruptObjectError) else str(error)


def _way_out(error: Exception) -> str:
    if isinstance(error, CorruptObjectError):
        return remedy_of(error.key)
    return f"`labelloop rollback` goes to a version on another backbone; {BACKUP}"


def network(record: ProjectRecord, sides: Sequence[int]) -> Finding:
    """The pixel network on photographs costs tens of points of accuracy. ``sides``: longer ones of some images."""
    name = record.config.backbone.name
    if name != PIXELS or record.network == BY_CONFIG or not sides or are_tiny(sides):
        return fine("network", f"{name}: {record.network}" if record.network else name)
    best = max(NETWORKS, key=lambda row: row.accuracy if row.images_per_cpu_s >= CPU_RATE else 0.0).name
    return warn(
        "network", f"{name}, which sees {PIXEL_SIDE}×{PIXEL_SIDE} pixels, on images of {median(sides):.0f} pixels: "
        "expect far lower accuracy than with pretrained weights", f"put `backbone: {{name: {best}}}` into the "
        "project's config and run `labelloop init --config FILE` with it; the next retrain moves the project",
    )  # fmt: skip


def runs(recent: Sequence[Run], snapshot: str, wishes: Sequence[Request] = ()) -> Finding:
    """``found``: newest first, of the config that counts. Three failed_tries on the same labels, and nothing is tried.

    ``wishes``: what people ask for; after one for another try earlier failures do not count.
    """
    for kind in ("refresh", "retrain"):
        failed = failed_tries(recent, kind, snapshot, retries=retries(wishes, kind))
        if len(failed) >= ATTEMPTS:
            why = failed[-1].reasons[0] if failed[-1].reasons else "no reason recorded"
            return wrong("runs", f"{kind} failed {len(failed)} times and is on hold: "
                                 f"{why}", f"fix the reason, then `labelloop queue retry {kind}`")  # fmt: skip
    last = next((run for run in recent if run.outcome != "running"), None)
    if last and last.outcome == "failed":
        return warn("runs", f"the last {last.kind} failed: "
                            f"{last.reasons[0] if last.reasons else '?'}", "it is retried by itself; check the "
                                "worker's log if this stays")  # fmt: skip
    return fine("runs", f"last: {last.kind} {last.outcome}" if last else "none yet")


def features(first: Mapping[str, Any], second: Mapping[str, Any], jobs: Sequence[JobState]) -> Finding:
    """The pool, read twice. An image without features is neither ordered nor learned from."""
    missing = _missing(second)
    images, unreadable = int(second.get("images", 0)), int(second.get("unreadable", 0))
    if missing <= 0:
        if unreadable:
            return warn("features", f"{unreadable} of {images} images cannot be read", "see the worker's log (action "
                        "featurise) for which and why")  # fmt: skip
        return fine("features", f"{images} images, all with features")
    if jobs or missing < _missing(first):
        return fine("features", f"{missing} of {images} images to go")
    return warn("features", f"{missing} of {images} images have none, and no job computes them", "check that a "
        "worker for features runs; the watcher retries at growing intervals")  # fmt: skip


def _features(scene: Scene, record: ProjectRecord) -> Finding:
    before = _pool(scene.watched(record))
    jobs = [job for job in scene.jobs() if job.kind == FEATURISE.name and job.project == record.key]
    if not before:
        return fine("features", "not known: no watcher checks the project")
    if not _missing(before) or jobs:
        return features(before, before, jobs)
    time.sleep(AGAIN_S)
    later = {n: f for n, f in alive(scene.deployment.queue.redis).items() if n.startswith("sync:")}
    reports = [facts["projects"][record.key] for facts in later.values() if record.key in (facts.get("projects") or {})]
    return features(before, _pool(reports[0]) if reports else before, [])


def _pool(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    return facts.get("pool") or {}


def _missing(pool: Mapping[str, Any]) -> int:
    return int(pool.get("images", 0)) - int(pool.get("featurised", 0)) - int(pool.get("unreadable", 0))


def _runs(scene: Scene, record: ProjectRecord) -> Finding:
    snapshot = scene.snapshot(record)
    ours = [run for run in scene.runs(record) if run.config == record.config.hash]
    wishes = RequestStore(scene.deployment.within(record)).open()
    return runs(ours, snapshot.id if snapshot else "", wishes)
