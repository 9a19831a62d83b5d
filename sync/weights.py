"""A network's kept weights in, why they are damaged out; and a worker is asked to build them again where it can."""

from __future__ import annotations

import re
from collections.abc import Sequence

import structlog

from labelloop.errors import FormatError, NotFoundError
from labelloop.objects.damage import UNREADABLE
from labelloop.objects.storage import ObjectInfo, ObjectStore
from labelloop.queue.jobs import FEATURISE, JobQueue, job_id
from labelloop.records.json import digest
from labelloop.records.versions import BackboneRecord
from labelloop.store.registry import CHANGED, Registry

LARGEST = 128 * 2**20  # read whole, once; larger ones are read by the backend, a worker and `labelloop doctor` alone
_KEY = re.compile(r"backbones/([^/]+)/weights\.safetensors")

log = structlog.get_logger()


def is_weights(info: ObjectInfo) -> bool:
    """Whether `WeightsPublisher.fault` looks at it."""
    return bool(_KEY.fullmatch(info.key)) and info.size <= LARGEST


class WeightsPublisher:
    """One project's."""

    def __init__(self, project: str, store: ObjectStore, registry: Registry, queue: JobQueue) -> None:
        self._project, self._store, self._registry, self._queue = project, store, registry, queue
        self._asked: set[str] = set()

    def fault(self, key: str) -> str | None:
        """None where they are as their record says, or where there is no record to judge them by."""
        record = self._record(key)
        if record is None or digest(self._store.get(key)) == record.weights_sha256:
            self._asked.discard(key)
            return None
        return CHANGED

    def repair(self, keys: Sequence[str]) -> None:
        """A job without images: whatever it loads it builds again. Asked once; only where nothing was learned."""
        for key in keys:
            record = self._record(key) if key not in self._asked else None
            if record and not record.snapshot:
                self._asked.add(key)
                self._queue.enqueue(FEATURISE, job_id(FEATURISE, self._project, record.id), self._job())
                log.info("queued", action="queue", kind=FEATURISE.name, project=self._project, why=f"{key} is damaged")

    def _job(self) -> dict[str, object]:
        return {"project": self._project, "uris": []}

    def _record(self, key: str) -> BackboneRecord | None:
        parts = _KEY.fullmatch(key)
        try:
            return self._registry.backbone(parts[1]) if parts else None
        except (*UNREADABLE, FormatError, NotFoundError):
            return None
