"""New images in the bucket in, tasks in Label Studio and featurise jobs out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass

import structlog

from labelloop.catalogue import Catalogue
from labelloop.errors import LabelloopError
from labelloop.features import FeatureIndex
from labelloop.queue import FEATURISE, JobQueue, job_id
from labelloop.records import ImageFacts, canonical, digest

CHUNK = 64  # images per featurise job: progress is visible, a killed job costs little
ACTIVE_JOBS = 16  # queued at once; the rest is derived again as they finish
LIST_EVERY_S = 15.0
RETRY_S = 5.0  # an image whose job came to nothing is asked for again after this long, then twice as long, ...

log = structlog.get_logger()
Listing = Callable[[], Iterable[tuple[str, str]]]  # (uri, etag) of every image in the bucket


@dataclass(frozen=True, slots=True)
class _Asked:
    """The last job that was queued for an image."""

    job: str
    at: float
    times: int = 1


@dataclass(frozen=True, slots=True)
class PoolState:
    """What is known of the images."""

    images: int = 0
    featurised: int = 0
    unreadable: int = 0

    @property
    def missing(self) -> int:
        """Images that still wait for features."""
        return self.images - self.featurised - self.unreadable


class Pool:
    """One project's images: every one becomes a task, gets a bucket and features, before anyone labels it."""

    def __init__(self, key: str, listing: Listing, import_new: Callable[[], None], queue: JobQueue) -> None:
        self._key, self._listing, self._import, self._queue = key, listing, import_new, queue
        self._etags: dict[str, str] = {}
        self._listed_at = float("-inf")
        self._asked: dict[str, _Asked] = {}  # by uri
        self._importing: threading.Thread | None = None
        self.state = PoolState()
        self.problem: str | None = None

    def turn(self, tasks: Sequence[str], catalogue: Catalogue, index: FeatureIndex | None, *,
             deleted: Set[str], now: bool) -> bool:  # fmt: skip
        """Look for new images (every 15 s, or ``now``) and queue what lacks features. True where anything is new.

        ``deleted``: images whose task a person removed; alone they are no reason to sync again.
        """
        if now or time.monotonic() - self._listed_at > LIST_EVERY_S:
            self._list(set(tasks), deleted)
        for uri in tasks:  # tasks that point elsewhere than the listed prefix count, too
            self._etags.setdefault(uri, "")
        active = set(self._queue.active(FEATURISE, self._key))  # before the index: what ended since is in it
        catalogue.update()
        if index is not None:
            index.update()
        missing = [u for u, etag in self._etags.items() if self._lacks(u, etag, catalogue, index)]
        unreadable = {u for u in self._etags if (f := catalogue.images.get(u)) and f.problem}
        lacking = len(unreadable.union(missing))
        before = self.state
        self.state = PoolState(len(self._etags), len(self._etags) - lacking, len(unreadable))
        self._featurise(missing, active)
        return before != self.state

    @property
    def importing(self) -> bool:
        """True while Label Studio turns objects into tasks."""
        return self._importing is not None and self._importing.is_alive()

    def _list(self, tasks: set[str], deleted: Set[str]) -> None:
        self._listed_at = time.monotonic()
        found = dict(self._listing())
        self._etags = {**{u: e for u, e in self._etags.items() if u in tasks}, **found}
        if not self.importing and any(uri not in tasks and uri not in deleted for uri in found):
            self._importing = threading.Thread(target=self._import_new, name="storage-sync", daemon=True)
            self._importing.start()

    def _import_new(self) -> None:
        try:
            self._import()
            self.problem = None
        except LabelloopError as error:
            self.problem = f"new images cannot be synced into Label Studio: {error}"
            log.error("storage sync failed", action="import", reason=str(error))

    def _lacks(self, uri: str, etag: str, catalogue: Catalogue, index: FeatureIndex | None) -> bool:
        if _is_settled(catalogue.images.get(uri), etag):
            return False
        place = index.places.get(uri) if index else None
        return place is None or bool(etag and place.etag != etag)

    def _featurise(self, missing: list[str], active: set[str]) -> None:
        moment = time.monotonic()
        due = sorted(u for u in missing if self._is_due(u, active, moment))
        for start in range(0, min(len(due), (ACTIVE_JOBS - len(active)) * CHUNK), CHUNK):
            chunk = due[start : start + CHUNK]
            name = job_id(FEATURISE, self._key, digest(canonical(chunk))[:12])
            self._queue.enqueue(FEATURISE, name, {"project": self._key, "uris": chunk})
            for uri in chunk:
                before = self._asked.get(uri)
                self._asked[uri] = _Asked(name, moment, before.times + 1 if before else 1)

    def _is_due(self, uri: str, active: set[str], moment: float) -> bool:
        asked = self._asked.get(uri)
        if asked is None:
            return True
        return asked.job not in active and moment - asked.at > RETRY_S * 2 ** min(asked.times, 8)


def _is_settled(facts: ImageFacts | None, etag: str) -> bool:
    """These very bytes cannot be decoded. One that could not be *read* is asked for again, at growing intervals."""
    return facts is not None and facts.problem is not None and facts.etag != "" and etag in {facts.etag, ""}
