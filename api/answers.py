"""What a route asks of `operations`, as the API's types."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from api.types import (
    DecidedOut,
    Decision,
    ModelOut,
    ModelsOut,
    ProjectOut,
    ProjectsOut,
    Reason,
    RetrainOut,
    StatusOut,
)
from labelloop.errors import NotFoundError
from labelloop.records.api_keys import ApiKey
from labelloop.records.versions import Version
from labelloop.rules.approvals import state, waiting
from labelloop.store.projects import ProjectRecord
from labelloop.web.problems import ProblemError
from operations.deployment import Deployment
from operations.models import decisions, retrain
from operations.status import StatusReader

FRESH_S = 1.0  # a picture of the loop is not drawn again for another second
PATIENCE_S = 20.0


@dataclass
class _Picture:
    """One project's status; the reader keeps what never changes."""

    reader: StatusReader
    lock: threading.Lock = field(default_factory=threading.Lock)
    status: StatusOut | None = None
    at: float = float("-inf")


class Answers:
    """One deployment's. Safe to share between threads."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._pictures: dict[str, _Picture] = {}
        self._lock = threading.Lock()

    def projects(self, key: ApiKey) -> ProjectsOut:
        """Those that the key is for; StorageError."""
        records = [r for r in self._deployment.projects.all() if key.project in {"", r.key}]
        return ProjectsOut(projects=[self._project_out(record) for record in records])

    def models(self, project: str, limit: int) -> ModelsOut:
        """Newest first; NotFoundError, StorageError."""
        registry = self._deployment.registry(self._record(project))
        live, versions, rejected = registry.live(), registry.versions(), registry.rejected()
        name = live.version if live else None
        waits = {v.name for v in waiting(versions, live=name, rejected=rejected)}
        newest = sorted(versions, key=lambda v: -v.number)[:limit]
        rows = [_model_out(v, state(v, live=name, rejected=rejected, waits=waits)) for v in newest]
        return ModelsOut(project=project, champion=name, models=rows)

    def status(self, project: str) -> StatusOut:
        """One picture for all who ask within a second; NotFoundError, StorageError, ProblemError."""
        record = self._record(project)
        with self._lock:
            known = self._pictures.setdefault(project, _Picture(StatusReader(self._deployment, only=record)))
        if not known.lock.acquire(timeout=PATIENCE_S):
            raise ProblemError(503, "the status is being read, and that takes long; try again soon", retry_s=5)
        try:
            if known.status is None or time.monotonic() - known.at > FRESH_S:
                known.status, known.at = _read(known.reader, project), time.monotonic()
            return known.status
        finally:
            known.lock.release()

    def retrain(self, project: str, key: ApiKey) -> RetrainOut:
        """NotFoundError, StorageError."""
        request, new = retrain.ask_once(self._deployment, self._record(project), by=key.who)
        return RetrainOut(request=request.id, new=new)

    def promote(self, project: str, wish: Decision, key: ApiKey) -> DecidedOut:
        """See `decisions.promote`."""
        return self._decided(project, lambda d, r: decisions.promote(d, r, wish.version, by=key.who, why=wish.why))

    def reject(self, project: str, wish: Decision, key: ApiKey) -> DecidedOut:
        """See `decisions.reject`."""
        return self._decided(project, lambda d, r: decisions.reject(d, r, wish.version, by=key.who, why=wish.why))

    def rollback(self, project: str, wish: Reason, key: ApiKey) -> DecidedOut:
        """See `decisions.rollback`."""
        return self._decided(project, lambda d, r: decisions.rollback(d, r, by=key.who, why=wish.why))

    def _decided(
        self, project: str, decide: Callable[[Deployment, ProjectRecord], decisions.Decided]
    ) -> DecidedOut:  # fmt: skip
        decided = decide(self._deployment, self._record(project))
        skipped = [f"{name}: {why}" for name, why in decided.skipped]
        return DecidedOut(
            champion=decided.version, previous=decided.previous, changed=decided.changed, skipped=skipped,
            note=decided.paused,
        )  # fmt: skip

    def _record(self, project: str) -> ProjectRecord:
        try:
            return self._deployment.projects.get(project)
        except NotFoundError as error:
            raise NotFoundError(f"there is no project {project!r}; GET /v1/projects lists them") from error

    def _project_out(self, record: ProjectRecord) -> ProjectOut:
        live = self._deployment.registry(record).live()
        return ProjectOut(key=record.key, title=record.title, classes=list(record.schema.classes),
                          champion=live.version if live else None)  # fmt: skip


def _read(reader: StatusReader, project: str) -> StatusOut:
    status = reader.read()
    if not status.projects:
        raise ProblemError(503, "object storage cannot be reached; try again soon")
    jobs = [job for job in status.jobs if job.project == project]
    return StatusOut(at=status.at, services=list(status.services), queue=dict(status.queue), jobs=jobs,
                     project=replace(status.projects[0]))  # fmt: skip


def _model_out(version: Version, now: str) -> ModelOut:
    evaluation = version.evaluation
    return ModelOut(
        name=version.name, kind=version.kind, state=now, made=version.created_at, backbone=version.backbone,
        classes=list(version.labels), labels=evaluation.labels, accuracy=evaluation.accuracy,
        test_accuracy=evaluation.test_accuracy, test_labels=evaluation.test_n,
        verdict=version.verdict.outcome.value, reasons=list(version.verdict.reasons),
    )  # fmt: skip
