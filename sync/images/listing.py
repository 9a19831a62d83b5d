"""What lies in the bucket, listed by a thread of its own; only the difference to the last listing comes out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from labelloop.errors import LabelloopError
from labelloop.images.reader import ImageListing, LeftOut
from sync.pace import Pace

LIST_EVERY_S = 15.0
SHARE = 0.05  # of the time that listing may take: seldom where the bucket is large

log = structlog.get_logger()
Listing = Callable[[], Iterable[tuple[str, str]]]  # (uri, etag) of every image in the bucket
Start = Callable[[Callable[[], None]], None]


@dataclass(frozen=True, slots=True)
class ListingChanges:
    """How the bucket differs from the listing before."""

    changed: dict[str, str]  # uri -> etag of images that are new, or have other bytes
    removed: set[str]
    left_out: Mapping[str, LeftOut] = field(default_factory=dict)  # objects that are no images, by reason


class Lister:
    """Lists in the background, at growing intervals as the bucket grows. `take` is called by one thread alone."""

    def __init__(self, listing: Listing, *, start: Start | None = None) -> None:
        self._listing, self._start = listing, start or _in_thread
        self._found: ListingChanges | None = None
        self._busy = False
        self._again_at, self._pace = float("-inf"), Pace(LIST_EVERY_S, SHARE)
        self.etags: dict[str, str] = {}  # as `take` has told it
        self.left_out: Mapping[str, LeftOut] = {}
        self.listed = False  # whether any listing was taken
        self.problem: str | None = None

    def take(self) -> ListingChanges | None:
        """How the bucket has changed; None where no listing has ended since the last call. Begins the next one."""
        changes, self._found = self._found, None
        if changes is not None:
            self.listed, self.left_out = True, changes.left_out
            self.etags.update(changes.changed)
            for uri in changes.removed:
                del self.etags[uri]
        if changes is None and not self._busy and time.monotonic() > self._again_at:
            self._busy = True
            self._start(self._run)
        return changes

    def _run(self) -> None:
        began = time.monotonic()
        try:
            self._found = self._differences()
            self.problem = None
        except LabelloopError as error:
            self.problem = f"the images cannot be listed: {error}"
            log.error("listing failed", action="list", reason=str(error))
        finally:
            self._again_at = time.monotonic() + self._pace.rest_s(time.monotonic() - began)
            self._busy = False

    def _differences(self) -> ListingChanges:
        """`etags` stands still meanwhile: it changes only in `take`, and not before this is found."""
        changed: dict[str, str] = {}
        unseen = set(self.etags)
        listing = self._listing()
        for uri, etag in listing:
            unseen.discard(uri)
            if self.etags.get(uri) != etag:
                changed[uri] = etag
        return ListingChanges(changed, unseen, listing.left_out if isinstance(listing, ImageListing) else {})


def _in_thread(run: Callable[[], None]) -> None:
    threading.Thread(target=run, name="listing", daemon=True).start()
