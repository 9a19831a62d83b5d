"""New images in the bucket in, tasks in Label Studio and featurise jobs out.

A turn costs what has changed since the last one, not what there is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass
from typing import Any

from labelloop.clock import LocalAges
from labelloop.images.reader import LeftOut
from labelloop.queue.jobs import FEATURISE, JobQueue, job_id
from labelloop.records.images import ImageFacts
from labelloop.records.json import canonical, digest
from labelloop.store.catalogue import Catalogue
from labelloop.store.features import FeatureIndex
from sync.answers.task_index import TaskIndex
from sync.images.imports import Import, Imports
from sync.images.listing import Lister, Listing
from sync.images.mirror import Mirroring
from sync.images.waiting import Waiting

CHUNK = 64  # images per featurise job: progress is visible, a killed job costs little
READ_EVERY_S = 5.0  # catalogue and features where no job of ours is under way: only a retrain adds to them then
DECIDE_AFTER_S = 10.0  # without any image under way, until splits are decided by those that came
ACTIVE_JOBS = 16  # queued at once; the rest is derived again as they finish


@dataclass(frozen=True, slots=True)
class PoolState:
    """What is known of the images."""

    images: int = 0
    featurised: int = 0
    unreadable: int = 0
    refused: int = 0  # in the bucket, and Label Studio makes no task of them
    refused_one: str = ""  # one of these
    undecided: int = 0  # read, and not in a split yet: that takes more images

    @property
    def missing(self) -> int:
        """Images that still wait for features."""
        return self.images - self.featurised - self.unreadable


class ImagePool:
    """One project's images: every one becomes a task, gets a split and features, before anyone labels it."""

    def __init__(
        self, key: str, listing: Listing, import_new: Import, queue: JobQueue,
        mirroring: Mirroring | None = None, *, by_task: bool = False,
    ) -> None:  # fmt: skip
        """``by_task``: a field of its task says where an image stands, so that one without a task waits."""
        self._key, self._queue, self._mirroring = key, queue, mirroring
        self._lister, self._importing = Lister(listing), Imports(import_new)
        self._read_at = float("-inf")
        self._index: FeatureIndex | None = None
        self._etags: dict[str, str] = {}  # every image -> its ETag; empty where only a task names it
        self._stale: set[str] = set()  # images that have changed
        self._waiting = Waiting()  # images without features
        self._uncopied: set[str] = set()  # images without features, and without a copy that workers can read
        self._unreadable: set[str] = set()
        self.overwritten: set[str] = set()  # files in which other bytes were found, not looked at yet
        self._both = 0  # images that are in both
        self._undecided: set[str] = set()  # images without a split, which nobody is shown yet
        self._by_task = by_task
        self._taskless: set[str] = set()  # those of them that wait for a task
        self._held = LocalAges()  # since when nothing but a decision is missing
        self._unimported: set[str] = set()  # in the bucket, without a task, and nobody removed it
        self.state = PoolState()

    def turn(
        self, task_index: TaskIndex, catalogue: Catalogue, index: FeatureIndex | None, *, deleted: Set[str]
    ) -> None:
        """Take in what has changed of tasks, bucket, catalogue and index, and queue what lacks features.

        ``deleted``: images whose task a person removed; alone they are no reason to sync again.
        """
        self._stale |= task_index.take_changed() | (self._mirroring.turn() if self._mirroring else set())
        listed = self._listed(task_index)
        active = set(self._queue.active(FEATURISE, self._key))  # before the index: what ended since is in it
        if (
            active
            or self._waiting
            or self._undecided
            or index is not self._index
            or time.monotonic() - self._read_at > READ_EVERY_S
        ):
            self._read(catalogue, index)
        while self._stale:
            self._judge(self._stale.pop(), task_index, catalogue, deleted)
        lacking = len(self._waiting) + len(self._uncopied) + len(self._unreadable) - self._both
        refused = self._importing.refused(self._unimported)
        waits = len(self._undecided) - len(self._taskless)
        self.state = PoolState(
            len(self._etags), len(self._etags) - lacking - waits, len(self._unreadable), len(refused),
            min(refused, default=""), len(self._undecided),
        )  # fmt: skip
        if listed:
            self._importing.offer(self._unimported)
        self._featurise(active)

    def facts(self) -> dict[str, Any]:
        """What `labelloop status` shows of the images."""
        left_out = {why: asdict(one) for why, one in self.left_out.items()}
        return asdict(self.state) | {"importing": self.importing, "left_out": left_out}

    @property
    def importing(self) -> bool:
        """True while Label Studio turns objects into tasks."""
        return self._importing.running

    @property
    def settled(self) -> bool:
        """True where every image that there is has its features."""
        return self._lister.listed and self.state.missing == 0 and not self.importing

    @property
    def problem(self) -> str | None:
        """Why new images do not become tasks, in words."""
        return self._importing.problem or self._lister.problem

    @property
    def left_out(self) -> Mapping[str, LeftOut]:
        """Objects of the bucket that are no images by their names, by reason."""
        return self._lister.left_out

    def _listed(self, task_index: TaskIndex) -> bool:
        """Take in the newest listing of the bucket; False where there is none since the last call."""
        changes = self._lister.take()
        if changes is None:
            return False
        for uri, etag in changes.changed.items():
            self._etags[uri] = etag
        for uri in changes.removed - task_index.tasks_of.keys():
            self._etags.pop(uri, None)
        self._importing.forget(changes.changed.keys() | changes.removed)
        self._stale |= changes.changed.keys() | changes.removed
        return True

    def _read(self, catalogue: Catalogue, index: FeatureIndex | None) -> None:
        for touched in catalogue.updates():
            self._stale |= touched
            self.overwritten |= {uri for uri in touched if catalogue.images[uri].earlier}
        if index is not self._index:
            self._index = index
            self._stale |= self._etags.keys()
        for touched in index.updates() if index is not None else ():
            self._stale |= touched
        self._read_at = time.monotonic()

    def _judge(self, uri: str, task_index: TaskIndex, catalogue: Catalogue, deleted: Set[str]) -> None:
        """Where one image stands now."""
        self._both -= self._is_both(uri)
        shown, listed = uri in task_index.tasks_of, uri in self._lister.etags
        if shown:
            self._etags.setdefault(uri, "")  # tasks that point elsewhere than the listed prefix count, too
        elif not listed:
            self._etags.pop(uri, None)
        facts = catalogue.images.get(uri)
        there = uri in self._etags
        _put(self._unreadable, uri, there and facts is not None and facts.problem is not None)
        _put(self._unimported, uri, listed and not shown and uri not in deleted)
        waits = there and self._lacks(uri, facts)
        decides = facts is not None and facts.sha256 and not facts.group and not facts.problem
        undecided = bool(there and decides and not waits)
        _put(self._undecided, uri, undecided)
        _put(self._taskless, uri, undecided and self._by_task and not shown)
        ready = not waits or self._is_ready(uri)
        _put(self._uncopied, uri, not ready)
        self._waiting.put(uri, waits=waits and ready)
        if not there and self._mirroring:
            self._mirroring.forget(uri)
        self._both += self._is_both(uri)

    def _is_ready(self, uri: str) -> bool:
        return self._mirroring is None or self._mirroring.ready(uri)

    def _is_both(self, uri: str) -> bool:
        return uri in self._unreadable and (uri in self._waiting or uri in self._uncopied)

    def _lacks(self, uri: str, facts: ImageFacts | None) -> bool:
        etag = self._etags[uri]
        if _is_settled(facts, etag):
            return False
        place = self._index.places.get(uri) if self._index is not None else None
        return place is None or bool(etag and place.etag != etag)

    def _featurise(self, active: set[str]) -> None:
        for _ in range(ACTIVE_JOBS - len(active)):
            chunk = self._waiting.take(CHUNK, active)
            if not chunk:
                break
            name = job_id(FEATURISE, self._key, digest(canonical(chunk))[:12])
            self._waiting.asked(chunk, name)  # first: where it cannot be queued now, it is asked for again later
            self._queue.enqueue(FEATURISE, name, {"project": self._key, "uris": chunk, "pool": len(self._etags)})
        self._decide(active)

    def _decide(self, active: set[str]) -> None:
        """Have the splits decided by what is known, where the rest does not come: unread images must not stop all."""
        ready = self._undecided - self._taskless
        held = self._held.ages_s({self._key} if ready and not self._waiting and not active else ())
        if any(age > DECIDE_AFTER_S for age in held.values()):
            chunk = sorted(ready)[:CHUNK]
            name = job_id(FEATURISE, self._key, "decide", digest(canonical(chunk))[:12])
            one = chunk[:1]  # no image at all would ask for damaged weights, and for no decision
            self._queue.enqueue(FEATURISE, name, {"project": self._key, "uris": one})


def _put(where: set[str], uri: str, present: bool) -> None:
    if present:
        where.add(uri)
    else:
        where.discard(uri)


def _is_settled(facts: ImageFacts | None, etag: str) -> bool:
    """These very bytes cannot be decoded. One that could not be *read* is asked for again, at growing intervals."""
    return facts is not None and facts.problem is not None and facts.etag != "" and etag in {facts.etag, ""}
