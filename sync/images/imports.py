"""Objects without a task in, storage syncs of Label Studio out: one for each change of the bucket, not one more.

Label Studio's own filter may refuse what our listing takes. Asked again it refuses it again, and each time it lists
the whole bucket.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Set

import structlog

from labelloop.decoding.endings import ending_of
from labelloop.errors import LabelloopError
from labelloop.store.projects import ProjectRecord
from labelloop.studio.client import Studio

IMPORTED = 200  # tasks in one request: it is answered long before it is given up
RETRY_S, RETRY_CAP_S = 10.0, 900.0  # after one that failed, or is still queued there: twice as long each time
QUEUED = 5  # answers that it is queued, after which it counts as done

log = structlog.get_logger()
Import = Callable[[Set[str]], bool | None]  # of these new objects; False: Label Studio does it later


def import_new(studio: Studio, project: ProjectRecord, new: Set[str]) -> bool:
    """Make tasks of new objects; False where Label Studio has only queued that.

    No filter of its storage tells an image without an ending from other such objects: these tasks we import ourselves.
    """
    if project.storage_id is None:
        return True
    nameless = sorted(uri for uri in new if project.by_bytes and not ending_of(uri))
    done = len(nameless) == len(new) or studio.sync_storage(project.storage_id)
    for start in range(0, len(nameless), IMPORTED):
        rows = [{"data": {project.schema.data_key: uri}} for uri in nameless[start : start + IMPORTED]]
        taken = studio.import_tasks(project.id, rows)
        log.info("imported", action="import_nameless", project=project.key, tasks=taken)
    return done


class Imports:
    """Storage syncs of one project, each in a thread of its own. Called by one thread."""

    def __init__(self, run: Import, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._run, self._clock = run, clock
        self._thread: threading.Thread | None = None
        self._offered: Set[str] = frozenset()  # what a sync has seen that ended well
        self._wanted: Set[str] = frozenset()  # by the last sync that did not
        self._tries, self._again_at = 0, float("-inf")
        self.problem: str | None = None

    @property
    def running(self) -> bool:
        """True while Label Studio turns objects into tasks."""
        return self._thread is not None and self._thread.is_alive()

    def refused(self, without: Set[str]) -> Set[str]:
        """Those of the objects ``without`` a task that Label Studio has seen and not taken."""
        return without & self._offered if not self.running else frozenset()

    def offer(self, without: Set[str]) -> None:
        """Sync, where there are objects ``without`` a task that no sync has seen."""
        new = without - self._offered
        if not new or self.running or (new <= self._wanted and self._clock() < self._again_at):
            return
        words = (frozenset(without), frozenset(new))
        self._thread = threading.Thread(target=self._sync, args=words, name="storage-sync", daemon=True)
        self._thread.start()

    def forget(self, uris: Set[str]) -> None:
        """These objects have changed or are gone: under the same name they would be new."""
        if not self._offered.isdisjoint(uris):
            self._offered -= uris

    def join(self) -> None:
        """Wait for the sync that runs; for tests."""
        if self._thread is not None:
            self._thread.join()

    def _sync(self, objects: Set[str], new: Set[str]) -> None:
        try:
            done = self._run(new) is not False or self._tries + 1 >= QUEUED
            self.problem = None
        except LabelloopError as error:
            done, self.problem = False, f"new images cannot be synced into Label Studio: {error}"
            log.error("storage sync failed", action="import", reason=str(error))
        if done:
            self._offered, self._wanted, self._tries = self._offered | objects, frozenset(), 0
            return
        self._tries = self._tries + 1 if objects <= self._wanted else 1
        self._wanted, wait = objects, min(RETRY_S * 2.0 ** (self._tries - 1), RETRY_CAP_S)
        self._again_at = self._clock() + wait
