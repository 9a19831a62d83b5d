"""Images that the loop has seen: their features are kept, and answered from as long as the bytes are the same.

Whether they are is known from the bucket's listing, at most `LISTED_S` old, else from a HEAD for the one image.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from labelloop.errors import LabelloopError, LostRowsError, NotFoundError
from labelloop.images.mirror import Mirror, source_of
from labelloop.objects import cache
from labelloop.objects.storage import ObjectStore
from labelloop.store.features import FeatureStore, RowPlace
from labelloop.store.projects import ProjectRecord

LISTED_S = 60.0  # so long an image that is overwritten may still be answered from the bytes before
AGAIN_S = 25.0  # a listing in use is made again
INDEX_EVERY_S = 5.0
PAYS_FROM = 100  # images asked for, for each of which a HEAD costs as much as a hundredth of a listing of 1000
PART = 1024  # rows that are gathered at once

Floats = NDArray[np.float32]
Listing = Callable[[ProjectRecord], Iterable[tuple[str, str]]]  # (uri, etag) of every object in the image place
log = structlog.get_logger()


class Etags(Protocol):
    """Asks S3 for one image's ETag."""

    def etag(self, uri: str) -> str:
        """Of the bytes that are there now; ImageUnreadableError, StorageError."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where kept features and the state of the bucket come from."""

    etags: Etags
    listing: Listing
    cache: Path  # this machine's copies of features, by project
    cache_max_bytes: int


@dataclass(frozen=True, slots=True)
class _Listed:
    """What the bucket held, and when it was asked."""

    etags: dict[str, str]
    at: float  # monotonic, when the listing began


class Kept:
    """One project's kept features under the live backbone. Lookups never wait: what is not at hand is not kept."""

    def __init__(self, project: str, store: ObjectStore, mirror: Mirror, sources: Sources) -> None:
        self._project, self._store, self._mirror, self._sources = project, store, mirror, sources
        self._features: FeatureStore | None = None
        self._here: frozenset[str] = frozenset()  # shards whose rows are on this machine
        self._listed = _Listed({}, float("-inf"))
        self._asked = 0  # images since the last listing
        self._updated = float("-inf")
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="kept")
        self._work: Future[None] | None = None
        self._kick, self._turn = threading.Lock(), threading.Lock()

    def follow(self, backbone: str) -> None:
        """From now on this one's features are asked for; they are looked up aside."""
        if self._features is None or self._features.index.backbone != backbone:
            self._features = FeatureStore(self._store, backbone, self._sources.cache / self._project)
            self._here, self._updated = frozenset(), float("-inf")

    def places(self, record: ProjectRecord, backbone: str, uris: Sequence[str]) -> list[RowPlace | None]:
        """Of each image that has features on this machine, whether or not its bytes are the same; None for others."""
        features = self._features
        if features is None or features.index.backbone != backbone:
            return [None] * len(uris)
        self._asked += len(uris)
        self._look_after(record, features)
        index, here = features.index.places, self._here
        found = [index.get(uri) for uri in uris]
        return [place if place is not None and place.shard in here else None for place in found]

    def is_same(self, uri: str, place: RowPlace) -> bool | None:
        """Whether the bytes are those that were featurised; None where only a HEAD can tell."""
        if source_of(uri) is not None:
            copy = self._mirror.copies.get(uri)
            return copy is not None and copy.sha256 == place.etag
        if time.monotonic() - self._listed.at > LISTED_S:
            return None
        etag = self._listed.etags.get(uri)
        return None if etag is None else etag == place.etag

    def is_same_now(self, uri: str, place: RowPlace) -> bool:
        """The same, by a HEAD; ImageUnreadableError, StorageError."""
        return self._sources.etags.etag(uri) == place.etag

    def rows(self, backbone: str, uris: Sequence[str]) -> Floats | None:
        """(len(uris), dimension) float32; None where they cannot be had after all."""
        features = self._features
        if features is None or features.index.backbone != backbone:
            return None
        try:
            with self._turn:
                parts = [features.rows(uris[i : i + PART]) for i in range(0, len(uris), PART)]
        except (LabelloopError, KeyError, OSError, ValueError) as error:  # pixels tell the same, only later
            log.warning("kept features cannot be used", action="kept", project=self._project, reason=str(error))
            return None
        return np.concatenate(parts)

    def stop(self) -> None:
        """Begin nothing new."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _look_after(self, record: ProjectRecord, features: FeatureStore) -> None:
        now = time.monotonic()
        pays = self._asked * 10 >= PAYS_FROM + len(features.index)
        lists = pays and now - self._listed.at > AGAIN_S
        if not lists and now - self._updated < INDEX_EVERY_S:
            return
        with self._kick:
            if self._work is None or self._work.done():
                self._work = self._pool.submit(self._refresh, record, features, lists=lists)

    def _refresh(self, record: ProjectRecord, features: FeatureStore, *, lists: bool) -> None:
        """Aside: what was featurised since, its rows, and what the bucket holds."""
        self._updated = time.monotonic()
        try:
            features.update()
            self._bring(features)
            if lists:
                self._list(record, features)
        except (LabelloopError, OSError) as error:
            log.warning("kept features cannot be read", action="kept", project=self._project, reason=str(error))
        except Exception as error:  # a thread's edge: images are computed meanwhile
            log.error("kept features cannot be read", action="kept", project=self._project, exc_info=error)

    def _bring(self, features: FeatureStore) -> None:
        """Rows of every shard, to this machine; one that cannot be had costs its own images."""
        here = set(self._here)
        for shard in sorted(features.index.sizes.keys() - here):
            try:
                features.fetch([shard])
                here.add(shard)
            except NotFoundError:  # a larger one has taken it over
                features.index.update(whole=True)
            except LostRowsError as error:  # the workers compute them again
                log.warning("kept features are lost", action="kept", project=self._project, reason=str(error))
        if here != self._here:
            cache.bound(self._sources.cache, self._sources.cache_max_bytes)
        if features is self._features:
            self._here = frozenset(here & features.index.sizes.keys())

    def _list(self, record: ProjectRecord, features: FeatureStore) -> None:
        began, self._asked = time.monotonic(), 0
        places = features.index.places
        etags = {uri: etag for uri, etag in self._sources.listing(record) if uri in places}
        self._listed = _Listed(etags, began)
