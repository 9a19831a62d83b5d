"""What the checks look at: a deployment's servers, with short time-outs; everything is asked once for all checks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import httpx

from labelloop.queue.failed import RECORDED
from labelloop.queue.heartbeat import alive
from labelloop.queue.jobs import JobState
from labelloop.records.runs import Run
from labelloop.records.snapshots import Snapshot
from labelloop.records.versions import COLD_START, LogEntry
from labelloop.store.catalogue import Catalogue
from labelloop.store.projects import ProjectRecord
from labelloop.store.registry import Registry
from labelloop.store.runs import RunStore
from labelloop.store.snapshots import SnapshotStore
from labelloop.studio.client import Studio, StudioProject
from labelloop.studio.wiring import ConnectedBackend, SourceStorage, StudioWiring, Webhook
from operations.deployment import Deployment

TIMEOUT_S = 8.0
LAST_RUNS = 64
T = TypeVar("T")


class Scene:
    """Safe to share between threads. Every method may raise LabelloopError."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment, self.settings = deployment, deployment.settings
        self.studio = Studio(
            self.settings.studio_url, self.settings.studio_token or "none", timeout_s=TIMEOUT_S,
            reread=lambda: self.settings.reread().studio_token or "none",
        )  # fmt: skip
        self.wiring = StudioWiring(self.studio.http)
        # a proxy of the environment is for the outside world, and Label Studio does not use ours
        self.http = httpx.Client(timeout=TIMEOUT_S, trust_env=False)
        self._known: dict[object, tuple[Any, BaseException | None]] = {}
        self._locks: dict[object, threading.Lock] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give the connections back."""
        self.studio.close()
        self.http.close()

    def once(self, name: object, read: Callable[[], T]) -> T:
        """Read it the first time; later the same value, or the same error."""
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            if name not in self._known:
                try:
                    self._known[name] = (read(), None)
                except Exception as error:  # remembered for the next check, and raised below
                    self._known[name] = (None, error)
        value, failure = self._known[name]
        if failure is not None:
            raise failure
        result: T = value
        return result

    # --- what everybody asks

    def records(self) -> list[ProjectRecord]:
        """All projects of this Label Studio."""
        return self.once("records", self.deployment.projects.all)

    def alive(self) -> Mapping[str, Mapping[str, Any]]:
        """Every process that lives, with its facts."""
        return self.once("alive", lambda: alive(self.deployment.queue.redis))

    def jobs(self) -> Sequence[JobState]:
        """What waits, runs or has failed."""
        return self.once("jobs", self.deployment.queue.jobs)

    # --- of one project

    def project(self, record: ProjectRecord) -> StudioProject:
        """As Label Studio has it."""
        return self.once(("project", record.key), lambda: self.studio.project(record.id))

    def backends(self, record: ProjectRecord) -> Sequence[ConnectedBackend]:
        """Connected ML backends; Label Studio has just asked each how it is."""
        return self.once(("backends", record.key), lambda: self.wiring.backends(record.id))

    def webhooks(self, record: ProjectRecord) -> Sequence[Webhook]:
        """Where the project's events go."""
        return self.once(("webhooks", record.key), lambda: self.wiring.webhooks(record.id))

    def storages(self, record: ProjectRecord) -> Sequence[SourceStorage]:
        """S3 source storages."""
        return self.once(("storages", record.key), lambda: self.wiring.storages(record.id))

    def registry(self, record: ProjectRecord) -> Registry:
        """Its models."""
        return self.once(("registry", record.key), lambda: self.deployment.registry(record))

    def live(self, record: ProjectRecord) -> LogEntry | None:
        """The last entry of the deployment log."""
        return self.once(("live", record.key), self.registry(record).live)

    def shown(self, record: ProjectRecord) -> str:
        """The version whose order people should get."""
        live = self.live(record)
        return live.version if live else COLD_START

    def runs(self, record: ProjectRecord) -> Sequence[Run]:
        """The last attempts of each kind, newest first."""
        store = RunStore(self.deployment.within(record))
        return self.once(("runs", record.key), lambda: _last(store))

    def snapshot(self, record: ProjectRecord) -> Snapshot | None:
        """The newest one."""
        return self.once(("snapshot", record.key), lambda: self._snapshot(record))

    def catalogue(self, record: ProjectRecord) -> Catalogue:
        """What is known of its images."""
        return self.once(("catalogue", record.key), lambda: self._catalogue(record))

    def watched(self, record: ProjectRecord) -> Mapping[str, Any]:
        """What the watcher says of it; empty where none looks after it."""
        for name, facts in self.alive().items():
            if name.startswith("sync:") and record.key in (facts.get("projects") or {}):
                return dict(facts["projects"][record.key])
        return {}

    def _snapshot(self, record: ProjectRecord) -> Snapshot | None:
        return SnapshotStore(self.deployment.within(record)).newest()

    def _catalogue(self, record: ProjectRecord) -> Catalogue:
        catalogue = Catalogue(self.deployment.within(record))
        catalogue.update()
        return catalogue


def _last(store: RunStore) -> list[Run]:
    """A hundred refreshes may come between two tries of a retrain."""
    runs = [run for kind in RECORDED for run in islice(store.newest(kind), LAST_RUNS)]
    return sorted(runs, key=lambda run: run.id, reverse=True)
