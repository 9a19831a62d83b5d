"""Addresses of images that workers cannot reach in, copies of them in the state bucket out: in the background."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from labelloop.clock import now
from labelloop.errors import ImageUnreadableError, LabelloopError, StorageError
from labelloop.images.mirror import Mirror, MirroredImage, source_of
from labelloop.images.reader import short
from sync.images.web import Fetched

AT_ONCE = 4  # images fetched at the same time, per project
FLUSH = 64  # copies per list
FLUSH_S = 1.0
RETRY_S, RETRY_CAP_S = 5.0, 900.0  # after a source did not answer: twice as long each time
USELESS_S = 600.0  # after it refused: twice as long each time, up to a day
DAY_S = 86400.0
PATIENCE = 5  # tries after which a silent source is told of as unreadable; it is asked on all the same

log = structlog.get_logger()
Fetch = Callable[[str], Fetched]


@dataclass(frozen=True, slots=True)
class MirrorState:
    """What is known of copies."""

    copied: int = 0
    waiting: int = 0
    failed: int = 0  # asked for again, at growing intervals
    problem: str | None = None  # the last one, while there are any


class Mirroring:
    """Copies one project's images from elsewhere, each once. Its threads live only while there is something to do."""

    def __init__(self, mirror: Mirror, fetch: Fetch | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._mirror, self._fetch, self._clock = mirror, fetch, clock
        self._lock = threading.Lock()
        self._waiting: dict[str, None] = {}  # asked for, in order
        self._later: list[tuple[float, str]] = []  # a heap of failures, by when they are tried again
        self._tries: dict[str, int] = {}  # of everything that was asked for and is not copied
        self._failed: dict[str, str] = {}  # uri -> why
        self._done: list[MirroredImage] = []  # not yet in a list
        self._flushed = float("-inf")
        self._new: set[str] = set()
        self._threads = 0
        self._copied = -1  # how many there are; not known before the first turn

    def ready(self, uri: str) -> bool:
        """True where a worker can read it, or learns why not. Otherwise a copy is asked for. No input or output."""
        if source_of(uri) is None or self._fetch is None:
            return True
        copy = self._mirror.copies.get(uri)
        if copy is not None and not copy.problem:
            return True
        with self._lock:
            if uri not in self._tries:
                self._tries[uri] = 0
                self._waiting[uri] = None
        return copy is not None

    def turn(self) -> set[str]:
        """Start what is due; images that became ready since the last call."""
        if self._copied < 0:
            self._mirror.update()
            self._copied = sum(not c.problem for c in self._mirror.copies.values())
        with self._lock:
            moment = self._clock()
            while self._later and self._later[0][0] <= moment:
                uri = heapq.heappop(self._later)[1]
                if uri in self._tries:
                    self._waiting[uri] = None
            threads = min(AT_ONCE, len(self._waiting) or bool(self._done))
            start = range(self._threads, threads)
            self._threads = max(self._threads, threads)
            ready, self._new = self._new, set()
        for _ in start:
            threading.Thread(target=self._work, name="mirror", daemon=True).start()
        return ready

    def forget(self, uri: str) -> None:
        """No task shows it any more: it is not asked for again."""
        with self._lock:
            self._waiting.pop(uri, None)
            self._tries.pop(uri, None)
            self._failed.pop(uri, None)

    def why(self, uri: str) -> str | None:
        """Why an image is not copied, where that was tried."""
        with self._lock:
            return self._failed.get(uri)

    @property
    def state(self) -> MirrorState:
        """For `labelloop status`."""
        with self._lock:
            problem = next(reversed(self._failed.values()), None)
            waiting = len(self._tries) - len(self._failed)
            return MirrorState(max(self._copied, 0), waiting, len(self._failed), problem)

    def _work(self) -> None:
        try:
            while (uri := self._next()) is not None:
                self._copy(uri)
            self._flush(whole=True)
        finally:
            with self._lock:
                self._threads -= 1

    def _next(self) -> str | None:
        with self._lock:
            uri = next(iter(self._waiting), None)
            if uri is not None:
                del self._waiting[uri]
            return uri

    def _copy(self, uri: str) -> None:
        assert self._fetch is not None
        try:
            fetched = self._fetch(uri)
            self._add(self._mirror.keep(uri, fetched.data, etag=fetched.etag, modified=fetched.modified))
        except ImageUnreadableError as error:
            self._fail(uri, str(error), useless=True)
        except LabelloopError as error:  # the source or our bucket is away
            self._fail(uri, str(error), useless=False)
        except Exception as error:  # a thread's edge: one image must not end the others
            log.exception("copy failed unexpectedly", action="mirror", uri=short(uri))
            self._fail(uri, f"{short(uri)}: {type(error).__name__}: {error}", useless=False)
        self._flush()

    def _add(self, copy: MirroredImage) -> None:
        with self._lock:
            self._done.append(copy)

    def _fail(self, uri: str, why: str, *, useless: bool) -> None:
        with self._lock:
            if uri not in self._tries:  # forgotten meanwhile
                return
            tries = self._tries[uri] = self._tries[uri] + 1
            first = uri not in self._failed
            wait = min(USELESS_S * 2**tries, DAY_S) if useless else min(RETRY_S * 2 ** (tries - 1), RETRY_CAP_S)
            heapq.heappush(self._later, (self._clock() + wait, uri))
            if useless or tries >= PATIENCE:
                self._failed[uri] = why
                if first:
                    self._done.append(MirroredImage(uri, now(), problem=why))
        log.warning("image not copied", action="mirror", uri=short(uri), reason=why, tries=tries)

    def _flush(self, *, whole: bool = False) -> None:
        """Make copies count; where the bucket is away, with the next ones."""
        with self._lock:
            due = len(self._done) >= FLUSH or self._clock() - self._flushed > FLUSH_S
            if not self._done or not (due or whole):
                return
            copies, self._done = self._done, []
            self._flushed = self._clock()
        with self._restoring(copies):
            self._mirror.record(copies)
            good = [c.uri for c in copies if not c.problem]
            with self._lock:
                for uri in good:
                    self._tries.pop(uri, None)
                    self._failed.pop(uri, None)
                self._copied += len(good)
                self._new |= {c.uri for c in copies}
            log.info("copied", action="mirror", count=len(good), refused=len(copies) - len(good))

    @contextmanager
    def _restoring(self, copies: list[MirroredImage]) -> Iterator[None]:
        try:
            yield
        except StorageError as error:
            log.warning("copies cannot be recorded", action="mirror", reason=str(error))
            with self._lock:
                self._done = copies + self._done
