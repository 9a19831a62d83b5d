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
from ml_backend.turns import end_turn

KEEP_S = 2.0  # how long a project's record is not asked for again
CATALOGUE_EVERY_S = 2.0
LOOKUP_S = 0.5  # Label Studio gives /setup three seconds
KNOWN_LOOKUPS = 16
UNKNOWN_LOOKUPS = 4
MAX_LOOKUPS = 64

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Known:
    record: ProjectRecord
    at: float


@dataclass(frozen=True, slots=True)
class _Asked:
    found: Future[ProjectRecord | None]
    since: float


class Directory:
    """Finds projects; remembers them while object storage is away or hangs."""

    def __init__(self, store: ProjectStore) -> None:
        self._store = store
        self._known: dict[str, _Known] = {}
        self._asked: dict[str, _Asked] = {}
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
        known = self._known.get(reference)
        if known and time.monotonic() - known.at < KEEP_S:
            return known.record
        try:
            return self._answer(self._ask(reference, known is not None))
        except (StorageError, *LEFT_OUT):  # away, or the record is damaged: see `ProjectStore.get`
            if known:
                return known.record
            raise

    def all(self) -> list[ProjectRecord]:
        """Every project; StorageError."""
        return self._store.all()

    def _ask(self, reference: str, known: bool) -> _Asked:
        """The lookup that is under way, or a new one. Those who ask for what nobody knows take no known one's turn."""
        with self._lock:
            asked = self._asked.get(reference)
            if asked is None:
                pool = self._again if known else self._first
                if not known and len(self._asked) >= MAX_LOOKUPS:
                    raise StorageError("too many projects are being looked up")
                found = pool.submit(self._look_up, reference)
                self._asked[reference] = asked = _Asked(found, time.monotonic())
        return asked

    def _answer(self, asked: _Asked) -> ProjectRecord | None:
        end_turn()
        try:
            return asked.found.result(max(0.0, asked.since + LOOKUP_S - time.monotonic()))
        except TimeoutError as error:
            raise StorageError(f"the project could not be looked up within {LOOKUP_S} s") from error

    def _look_up(self, reference: str) -> ProjectRecord | None:
        try:
            record = self._store.find(reference)
            if record is None:
                self._known.pop(reference, None)  # anybody can ask for anything: only what exists is kept
            else:
                self._known[reference] = _Known(record, time.monotonic())
            return record
        finally:
            with self._lock:
                self._asked.pop(reference, None)


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


def _is_blind(record: ProjectRecord, group: str, bucket: Split) -> bool:
    """As the queue has it (`labelloop.rules.acquisition`): opening such an image must not un-blind it."""
    return bucket in JUDGING or (bucket is Split.TRAIN and shown_blind(group, record.config.queue.blind))
