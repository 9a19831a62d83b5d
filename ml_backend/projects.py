"""Label Studio's name of a project in, its record and what is blind in it out."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from labelloop.errors import StorageError
from labelloop.images.mirror import source_of
from labelloop.records.images import JUDGING, Split
from labelloop.rules.split import group_of, shown_blind, split_of
from labelloop.store.catalogue import Catalogue
from labelloop.store.projects import LEFT_OUT, ProjectRecord, ProjectStore
from ml_backend.entrance.turns import end_turn

KEEP_S = 2.0  # how long a project's record is not asked for again
CATALOGUE_EVERY_S = 2.0
LOOKUP_S = 0.5  # Label Studio gives /setup three seconds
KNOWN_LOOKUPS = 16
UNKNOWN_LOOKUPS = 4
MAX_LOOKUPS = 64

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _CachedRecord:
    record: ProjectRecord
    at: float


@dataclass(frozen=True, slots=True)
class _Lookup:
    future: Future[ProjectRecord | None]
    since: float


class Directory:
    """Finds projects; remembers them while object storage is away or hangs."""

    def __init__(self, store: ProjectStore) -> None:
        self._store = store
        self._records: dict[str, _CachedRecord] = {}
        self._lookups: dict[str, _Lookup] = {}
        self._lock = threading.Lock()
        self._again = ThreadPoolExecutor(KNOWN_LOOKUPS, thread_name_prefix="lookup")
        self._first = ThreadPoolExecutor(UNKNOWN_LOOKUPS, thread_name_prefix="first-lookup")

    def stop(self) -> None:
        """Ask no more."""
        for pool in (self._again, self._first):
            pool.shutdown(wait=False, cancel_futures=True)

    def find(self, reference: str) -> ProjectRecord | None:
        """The project that Label Studio calls `<id>.<created_ts>`; StorageError or one of LEFT_OUT if never seen.

        Never waits for long: what was known a moment ago is answered where storage hangs.
        """
        cached = self._records.get(reference)
        if cached and time.monotonic() - cached.at < KEEP_S:
            return cached.record
        try:
            return self._answer(self._ask(reference, cached is not None))
        except (StorageError, *LEFT_OUT):  # away, or the record is damaged: see `ProjectStore.get`
            if cached:
                return cached.record
            raise

    def all(self) -> list[ProjectRecord]:
        """Every project; StorageError."""
        return self._store.all()

    def _ask(self, reference: str, is_cached: bool) -> _Lookup:
        """The lookup that is under way, or a new one. Those who ask for what nobody knows take no known one's turn."""
        with self._lock:
            lookup = self._lookups.get(reference)
            if lookup is None:
                pool = self._again if is_cached else self._first
                if not is_cached and len(self._lookups) >= MAX_LOOKUPS:
                    raise StorageError("too many projects are being looked up")
                future = pool.submit(self._look_up, reference)
                self._lookups[reference] = lookup = _Lookup(future, time.monotonic())
        return lookup

    def _answer(self, lookup: _Lookup) -> ProjectRecord | None:
        end_turn()
        try:
            return lookup.future.result(max(0.0, lookup.since + LOOKUP_S - time.monotonic()))
        except TimeoutError as error:
            raise StorageError(f"the project could not be looked up within {LOOKUP_S} s") from error

    def _look_up(self, reference: str) -> ProjectRecord | None:
        try:
            record = self._store.find(reference)
            if record is None:
                self._records.pop(reference, None)  # anybody can ask for anything: only what exists is kept
            else:
                self._records[reference] = _CachedRecord(record, time.monotonic())
            return record
        finally:
            with self._lock:
                self._lookups.pop(reference, None)


class Blinds:
    """Which images of a project must be answered with nothing: those of test and audit, and a share of the others."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._updated = float("-inf")

    def recorded(self, record: ProjectRecord, uri: str) -> bool | None:
        """What the catalogue says; None for an image that it does not hold (yet)."""
        facts = self._catalogue.images.get(uri)
        if facts is None:
            self._update()
            facts = self._catalogue.images.get(uri)
        if facts is None or not (facts.group or (facts.sha256 and facts.earlier)):
            return None
        return _is_blind(record, facts.unit, facts.bucket)

    def computed(self, record: ProjectRecord, uri: str, data: bytes) -> bool:
        """What `featurise` will decide from these bytes; never blind where S3 holds it outside the project's prefix."""
        if not uri.startswith(record.image_uri) and source_of(uri) is None:
            return False
        group = group_of(data)
        return _is_blind(record, group, split_of(group, record.config.buckets.shares()))

    def _update(self) -> None:
        with self._lock:
            if time.monotonic() - self._updated < CATALOGUE_EVERY_S:
                return
            try:
                self._catalogue.update()
            except StorageError as error:  # the bytes decide the same; see `computed`
                log.warning("the catalogue cannot be read", action="catalogue", reason=str(error))
            self._updated = time.monotonic()


def _is_blind(record: ProjectRecord, group: str, split: Split) -> bool:
    """As the queue has it (`labelloop.rules.acquisition`): opening such an image must not un-blind it."""
    return split in JUDGING or (split is Split.TRAIN and shown_blind(group, record.config.queue.blind))
