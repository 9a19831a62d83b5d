"""Label Studio's answers read and frozen into snapshots. What is to be done about them is decided elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping

import structlog

from labelloop.clock import now
from labelloop.errors import NotFoundError
from labelloop.objects.damage import UNREADABLE, Damage
from labelloop.objects.storage import ObjectStore
from labelloop.records.snapshots import Latest, Snapshot
from labelloop.records.tasks import Task
from labelloop.store.catalogue import Catalogue
from labelloop.store.deleted import KEY as DELETED
from labelloop.store.deleted import keep_deleted, read_deleted
from labelloop.store.snapshots import SnapshotStore
from sync.answers.feed import Changes, Feed
from sync.due import Due
from sync.pace import Pace

COUNT_EVERY_S = 5.0  # how soon a deleted task is noticed
COUNT_SHARE = 0.02  # of Label Studio's time that counting may take
SWEEP_EVERY_S = 300.0  # the whole list of tasks, for what no cheap sign shows
SWEEP_SHARE = 0.01  # of Label Studio's time that this may take: seldom where there are many tasks
PAGE_EVERY_S = 10.0  # a page of it at least this often, although people work

log = structlog.get_logger()


class Recorder:
    """One project's answers. ``snapshot`` is what they are now; ``latest`` the reference to it in the bucket."""

    def __init__(
        self, feed: Feed, snapshots: SnapshotStore, catalogue: Catalogue, store: ObjectStore, damage: Damage
    ) -> None:
        self.feed = feed
        self.snapshot: Snapshot | None = None
        self.latest: Latest | None = None
        self._snapshots, self._catalogue, self._store, self._damage = snapshots, catalogue, store, damage
        self._deleted_kept: set[str] = set()
        self._sweep_at = self._count_at = 0.0
        self._sweep_pace, self._count_pace = Pace(SWEEP_EVERY_S, SWEEP_SHARE), Pace(COUNT_EVERY_S, COUNT_SHARE)
        self._missing = 0  # how many tasks fewer than Label Studio's count we knew, as a negative number
        self._due = Due()

    def begin(self) -> None:
        """Find everything as it was left: the newest snapshot, then what changed while nobody watched."""
        self.latest = self._last_latest()
        self.feed.begin(self._last_tasks())
        self.feed.deleted = self._deleted()
        self._deleted_kept = set(self.feed.deleted)
        self._catalogue.update()  # before answers are read: which images were overwritten?
        began = time.monotonic()
        self.feed.reconcile()
        self.feed.look_again(uri for uri, facts in self._catalogue.images.items() if facts.earlier)
        self._plan_sweep(time.monotonic() - began)
        self._keep_deleted()
        self.freeze()

    def changes(self, *, nudged: bool) -> Changes:
        """What moved since the last call; in quiet moments, a look for what the change feed does not show."""
        changes = self.feed.poll() + self._recount()
        quiet = not (changes or nudged)
        due = self.feed.sweeping or time.monotonic() > self._sweep_at
        if due and (quiet or self._due.now("page", PAGE_EVERY_S)):
            changes += self._sweep()
        self._keep_deleted()
        return changes

    def freeze(self) -> None:
        """Write what the feed holds as the newest snapshot, where anything differs."""
        began = time.monotonic()
        self.snapshot = self._snapshots.advance(self.feed.tasks, self.feed.moved)
        before = self.latest
        if before and before.snapshot == self.snapshot.id:
            self.feed.frozen()
            return
        count = self.feed.annotations
        sequence = before.sequence + 1 if before else 1
        latest = Latest(self.snapshot.id, sequence, self.feed.cursor, now(), count)
        self._snapshots.set_latest(latest)
        self.latest = latest
        self.feed.frozen()
        log.info("frozen", action="freeze", snapshot=self.snapshot.id, annotations=count, sequence=sequence,
                 seconds=round(time.monotonic() - began, 3))  # fmt: skip

    def drain(self) -> Latest:
        """Read until nothing moves, with a whole reconcile, and freeze: exactness is judged on the result."""
        self.feed.reconcile()
        self._keep_deleted()
        while self.feed.poll():
            time.sleep(0.05)
        self.freeze()
        assert self.latest is not None
        return self.latest

    def set_aside(self, overwritten: set[str]) -> None:
        """Answers that were given to other bytes than stand there now, and those that count again."""
        self.feed.look_again(overwritten)
        overwritten.clear()
        if self.feed.dirty:
            self.freeze()

    def keep_latest(self) -> None:
        """A watcher that lost its lease in the middle of a write may have put an older snapshot back."""
        if self.latest and self._last_latest() != self.latest:
            log.warning("set the newest snapshot again", action="keep_latest", snapshot=self.latest.snapshot)
            self._snapshots.set_latest(self.latest)

    def _last_latest(self) -> Latest | None:
        """None where it cannot be read: Label Studio has all that it says, and the next freeze writes it again."""
        try:
            return self._snapshots.latest()
        except UNREADABLE:
            return None

    def _last_tasks(self) -> Mapping[int, Task]:
        """Those of the newest snapshot; Label Studio has them too, so a damaged one is read again from there."""
        try:
            return self._snapshots.load(self.latest.snapshot).tasks if self.latest else {}
        except (*UNREADABLE, NotFoundError) as error:
            log.warning("snapshot damaged, reading everything again", action="watch", reason=str(error))
            return {}

    def _recount(self) -> Changes:
        """Deleted tasks are found by their number; tasks that are missing here although they are there, by a sweep."""
        if time.monotonic() < self._count_at or self.feed.sweeping:
            return Changes()
        began = time.monotonic()
        surplus = self.feed.surplus()
        self._count_at = time.monotonic() + self._count_pace.rest_s(time.monotonic() - began)
        if surplus > 0:
            return self._find_deleted(surplus)
        changes = self.feed.poll() if surplus else Changes()
        if surplus and not changes.new and self._missing != surplus:  # they do not merely arrive; once for each number
            self._sweep_at = 0.0
        self._missing = surplus
        return changes

    def _find_deleted(self, surplus: int) -> Changes:
        changes = self.feed.find_deleted(surplus)
        if changes is None:
            self._sweep_at = 0.0
        return changes or Changes()

    def _sweep(self) -> Changes:
        """One more page of the whole list."""
        changes, done = self.feed.sweep()
        self._due.done("page")
        if done:
            self._plan_sweep(self.feed.sweep_took_s)
        return changes

    def _plan_sweep(self, took_s: float) -> None:
        self._sweep_at = time.monotonic() + self._sweep_pace.rest_s(took_s)

    def _deleted(self) -> set[str]:
        """Where neither object nor copy can be read: every image that was looked at and has no task."""
        try:
            return read_deleted(self._store, self._damage)
        except UNREADABLE:
            self._catalogue.update()
            return set(self._catalogue.images)

    def _keep_deleted(self) -> None:
        if self.feed.deleted != self._deleted_kept or self._damage.keys(DELETED):
            keep_deleted(self._store, self.feed.deleted)
            self._deleted_kept = set(self.feed.deleted)
            self._damage.resolved(DELETED)
