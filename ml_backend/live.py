"""The live models: the deployment log is polled, a version loaded aside, checked, and swapped in by one reference."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import structlog

from labelloop.clock import now
from labelloop.errors import (
    CorruptArtefactError,
    FormatError,
    LabelloopError,
    LeaseLostError,
    NotFoundError,
    StorageError,
)
from labelloop.images.mirror import Mirror
from labelloop.objects.damage import UNREADABLE, Damage
from labelloop.objects.storage import ObjectStore
from labelloop.records.versions import LogEntry
from labelloop.store.catalogue import Catalogue
from labelloop.store.projects import ProjectRecord, project_store
from labelloop.store.registry import Registry
from ml_backend.kept import Kept, Sources
from ml_backend.loader import Engines, LiveModel, load_model
from ml_backend.metrics import Metrics
from ml_backend.projects import Blinds
from ml_backend.readers import Readers
from ml_backend.turns import end_turn

MAX_PROJECTS = 8
MOST_TOLD = 50  # damaged objects in the heartbeat
READERS = 8  # of each project: images that hang hold up no other project's
MIRROR_EVERY_S = 1.0  # for images that are not copied yet

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Pace:
    """How often is looked."""

    poll_s: float = 1.0
    retry_s: float = 60.0  # at a refused version: somebody may have restored the artefact


@dataclass(frozen=True, slots=True)
class RefusedVersion:
    """A version that was not let live."""

    version: str
    reason: str
    at: str


class LiveProject:
    """One project's live model. ``model`` is one reference: read it once per request."""

    def __init__(
        self, record: ProjectRecord, store: ObjectStore, engines: Engines, metrics: Metrics,
        *, pace: Pace = Pace(), sources: Sources | None = None,
    ) -> None:  # fmt: skip
        self._retry_s = pace.retry_s
        self.key = record.key
        own = project_store(store, record.key)
        self.damage = damage = Damage()
        self.blinds = Blinds(Catalogue(own, damage))
        self.mirror = Mirror(own, damage, every_s=MIRROR_EVERY_S)
        self.kept = Kept(record.key, own, self.mirror, sources) if sources else None
        self.readers: Readers[Any] = Readers(READERS)
        self.model: LiveModel | None = None
        self.deployed: str | None = None  # what the log says, served or not
        self._registry = Registry(own, no_lease, damage)
        self._browsing = Registry(own, no_lease, damage)  # of its own: a load must not hold up /versions
        self._engines, self._metrics = engines, metrics
        self._refused: dict[str, tuple[RefusedVersion, int, float]] = {}  # with deployment and time of the refusal
        self._settled = threading.Event()
        self._busy, self._browse = threading.Lock(), threading.Lock()

    def refresh(self) -> None:
        """Bring the model up to the log. Safe to call at any time; a second caller goes away at once."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            self._follow(self._registry.deployments())
            self._settled.set()
        except StorageError as error:  # the next poll tries again; what serves goes on serving
            log.warning("the deployment log cannot be read", action="poll", project=self.key, reason=str(error))
        except Exception:
            self._settled.set()  # whatever is wrong with one project, the backend and the others go on
            raise
        finally:
            self._busy.release()

    def settled(self, timeout_s: float) -> bool:
        """Wait until the log was followed once; False where that takes longer."""
        if self._settled.is_set() or not timeout_s:
            return self._settled.is_set()
        end_turn()
        return self._settled.wait(timeout_s)

    def refused(self) -> list[RefusedVersion]:
        """What is not let live at present, and why."""
        return [entry[0] for entry in list(self._refused.values())]

    def versions(self) -> list[str]:
        """All versions' names, oldest first; StorageError."""
        end_turn()
        with self._browse:
            return [v.name for v in self._browsing.versions()]

    def facts(self) -> dict[str, Any]:
        """What `labelloop status` shows."""
        model = self.model
        return {
            "version": model.name if model else None,
            "backbone": model.engine.id if model else None,
            "loaded_at": model.loaded_at if model else None,
            "deployed": self.deployed,
            "refused": [asdict(r) for r in self.refused()],
            "damaged": [[d.key, d.reason] for d in self.damage.all()[:MOST_TOLD]],
        }

    def _follow(self, deployments: list[LogEntry]) -> None:
        if not deployments:
            return
        newest = deployments[-1]
        self.deployed = newest.version
        if self.model and self.model.name == newest.version:
            return
        if self._try(newest) or self.model:
            return
        self._fall_back(deployments)

    def _fall_back(self, deployments: list[LogEntry]) -> None:
        """Cold start with a bad champion: the newest intact predecessor, said aloud."""
        for name in dict.fromkeys(d.version for d in reversed(deployments[:-1])):
            entry = next(d for d in reversed(deployments) if d.version == name)
            if name != self.deployed and self._try(entry):
                bad = self.deployed
                log.warning("serving a predecessor", action="fall_back", project=self.key, version=name, instead_of=bad)
                return

    def _try(self, entry: LogEntry) -> bool:
        """Load and swap; False where the version is (still) refused. StorageError where storage is away."""
        name = entry.version
        refusal = self._refused.get(name)
        if refusal and refusal[1] == entry.number and time.monotonic() - refusal[2] < self._retry_s:
            return False
        try:
            self._swap(load_model(self._registry, self._engines, name, self.model))
        except (NotFoundError, CorruptArtefactError, FormatError) as error:
            if isinstance(error, UNREADABLE):
                self.damage.note(getattr(error, "key", name), error)
            self._refuse(entry, str(error))
        except StorageError:
            raise
        except Exception as error:  # whatever is wrong with an artefact, the one that serves goes on serving
            log.error("loading failed", action="load", project=self.key, version=name, exc_info=error)
            self._refuse(entry, f"{type(error).__name__}: {error}")
        return name not in self._refused

    def _swap(self, model: LiveModel) -> None:
        before = self.model
        if self.kept:
            self.kept.follow(model.engine.id)
        self.model = model  # the one atomic change: requests in flight finish on the reference they hold
        self._refused.pop(model.name, None)
        if model.name == self.deployed:
            self._let_go()
        kind = "head" if before and before.engine is model.engine else "backbone"
        self._metrics.swaps.labels(self.key, kind).inc()
        self._metrics.live(self.key, model.name, model.engine.id)
        log.info("swapped", action="swap", project=self.key, version=model.name, backbone=model.engine.id, kind=kind)

    def _let_go(self) -> None:
        """Artefacts of versions that were live before: nobody reads them here again, and sees them healed."""
        for key in (*self.damage.keys("models/heads/"), *self.damage.keys("backbones/")):
            self.damage.resolved(key)

    def _refuse(self, entry: LogEntry, reason: str) -> None:
        self._refused[entry.version] = (RefusedVersion(entry.version, reason, now()), entry.number, time.monotonic())
        self._metrics.refused.labels(self.key).inc()
        serving = self.model.name if self.model else None
        log.warning(
            "version refused", action="refuse", project=self.key, version=entry.version, reason=reason, serving=serving
        )


class LiveModels:
    """The live models of several projects; the least recently used goes out."""

    def __init__(
        self, store: ObjectStore, projects: Callable[[], list[ProjectRecord]], metrics: Metrics,
        *, limit: int = MAX_PROJECTS, pace: Pace = Pace(), sources: Sources | None = None,
    ) -> None:  # fmt: skip
        self._pace, self._sources = pace, sources
        self._store, self._projects, self._metrics = store, projects, metrics
        self._limit = limit
        self._engines = Engines()
        self._live: OrderedDict[str, LiveProject] = OrderedDict()
        self._lock = threading.Lock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._preloaded = self._warm = False
        # a thread for each project and two for the beginning: whatever hangs, the others are followed
        self._pool = ThreadPoolExecutor(limit + 2, thread_name_prefix="load")
        self._following: dict[str, Future[None]] = {}
        self._thread = threading.Thread(target=self._run, name="poll", daemon=True)

    def start(self) -> None:
        """Begin to poll."""
        self._thread.start()

    def stop(self) -> None:
        """End the poll; loads in progress are waited for."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def warm(self) -> bool:
        """Whether all that was wired before this process began was looked at once; true for good from then on."""
        if not self._warm:
            self._warm = self._preloaded and all(live.settled(0) for live in self.all())
        return self._warm

    def nudge(self) -> None:
        """Look now instead of at the next poll."""
        self._wake.set()

    def get(self, record: ProjectRecord) -> LiveProject:
        """The project, most recently used from now on; its first load begins in the background."""
        with self._lock:
            live = self._live.get(record.key)
            if live is None:
                live = self._add(record)
                self._wake.set()
            self._live.move_to_end(record.key)
        return live

    def all(self) -> list[LiveProject]:
        """The projects that are kept loaded, least recently used first."""
        with self._lock:
            return list(self._live.values())

    def facts(self) -> dict[str, Any]:
        """Project key -> what it serves."""
        return {live.key: live.facts() for live in self.all()}

    def _add(self, record: ProjectRecord) -> LiveProject:
        self._live[record.key] = live = LiveProject(
            record, self._store, self._engines, self._metrics, pace=self._pace, sources=self._sources
        )  # fmt: skip
        while len(self._live) > self._limit:
            key, _ = self._live.popitem(last=False)
            self._metrics.forget(key)
            log.info("least recently used, unloaded", action="evict", project=key)
        return live

    def _run(self) -> None:
        self._pool.submit(self._engines.prepare)
        self._pool.submit(self._begin)
        while not self._stop.is_set():
            for live in self.all():
                self._follow(live)
            self._wake.wait(self._pace.poll_s)
            self._wake.clear()

    def _begin(self) -> None:
        """Apart from the poll: a list of projects that hangs must not hold up those that are known."""
        while not self._stop.is_set():
            if self._preload():
                self._preloaded = True
                self._wake.set()
                return
            self._stop.wait(self._pace.poll_s)

    def _follow(self, live: LiveProject) -> None:
        """At most one load of a project at a time, so that each finds a thread."""
        before = self._following.get(live.key)
        if before is None or before.done():
            self._following[live.key] = self._pool.submit(self._refresh, live)

    def _preload(self) -> bool:
        """Load what was wired before this process began, so that the first request finds it warm. False: try again."""
        try:
            for record in self._projects()[: self._limit]:
                self.get(record)
        except LabelloopError as error:  # each project comes with its first request
            log.warning("projects cannot be listed", action="preload", reason=str(error))
            return False
        return True

    def _refresh(self, live: LiveProject) -> None:
        try:
            live.refresh()
        except Exception as error:  # a thread's edge: the next poll tries again
            log.error("following the deployment log failed", action="poll", project=live.key, exc_info=error)


def no_lease(name: str) -> AbstractContextManager[int]:
    """The backend never deploys."""
    return _refusing(name)


@contextmanager
def _refusing(name: str) -> Iterator[int]:
    raise LeaseLostError(f"the backend reads the registry and never writes it (lease {name})")
    yield 0
