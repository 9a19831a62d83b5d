"""The labelled images that are most like a given one, by the features of the live model's network.

Asked for seldom: what is labelled is read at the first wish, and again when it has changed. Images that judge or are
shown blind are left out: who labels them must not be led.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import LostRowsError, NotFoundError
from labelloop.model.head import unit
from labelloop.objects import cache
from labelloop.objects.storage import ObjectStore
from labelloop.records.arrays import Floats
from labelloop.rules.schema import LabelRules
from labelloop.store.features import FeatureStore
from labelloop.store.projects import ProjectRecord, project_store
from labelloop.store.snapshots import SnapshotStore
from labelloop.web.classify_types import Neighbour
from labelloop.web.problems import ProblemError
from ml_backend.live import LiveProject

MOST = 10_000  # labelled images of a project: the newest
KEPT = 2  # projects whose rows stay in memory: 25 MB each
EVERY_S = 10.0  # how soon a new label counts
PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """What is labelled, under one backbone. ``rows`` (n, features), each of length 1."""

    snapshot: str
    backbone: str
    uris: tuple[str, ...]
    labels: tuple[str, ...]
    rows: NDArray[np.float16]

    def nearest(self, features: Floats, count: int) -> list[list[Neighbour]]:
        """(m, features) to the most alike of each, best first."""
        if not self.uris or not count:
            return [[] for _ in features]
        likeness = unit(features) @ self.rows.astype(np.float32).T
        best = np.argsort(-likeness, axis=1, kind="stable")[:, :count]
        return [[self._at(int(n), float(row[n])) for n in order] for row, order in zip(likeness, best, strict=True)]

    def _at(self, number: int, likeness: float) -> Neighbour:
        return Neighbour(uri=self.uris[number], label=self.labels[number], likeness=round(min(likeness, 1.0), 4))


class Neighbours:
    """Of all projects of a process."""

    def __init__(self, store: ObjectStore, folder: Path, max_bytes: int) -> None:
        self._store, self._folder, self._max_bytes = store, folder, max_bytes
        self._kept: OrderedDict[str, tuple[LabelledRows, float]] = (
            OrderedDict()
        )  # by project, with when it was looked at
        self._building = threading.Lock()

    def of(self, record: ProjectRecord, live: LiveProject, backbone: str) -> LabelledRows:
        """As of a moment ago; StorageError, ProblemError (503) where another project's are being read for long."""
        kept = self._fresh(record.key, backbone)
        if kept:
            return kept
        with self._turn():
            kept = self._fresh(record.key, backbone) or self._read(record, live, backbone)
            self._kept[record.key] = (kept, time.monotonic())
            self._kept.move_to_end(record.key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return kept

    def _fresh(self, key: str, backbone: str) -> LabelledRows | None:
        rows, at = self._kept.get(key, (None, 0.0))
        return rows if rows and rows.backbone == backbone and time.monotonic() - at < EVERY_S else None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One at a time: reading them all takes memory for a moment."""
        if not self._building.acquire(timeout=PATIENCE_S):
            raise ProblemError(503, "labelled images are being read; ask for neighbours again soon", retry_s=5)
        try:
            yield
        finally:
            self._building.release()

    def _read(self, record: ProjectRecord, live: LiveProject, backbone: str) -> LabelledRows:
        own = project_store(self._store, record.key)
        snapshots = SnapshotStore(own)
        latest = snapshots.latest()
        before = self._kept.get(record.key, (None, 0.0))[0]
        if before and latest and (before.snapshot, before.backbone) == (latest.snapshot, backbone):
            return before
        tasks = LabelRules.of(record.config).read(snapshots.load(latest.snapshot)).tasks.values() if latest else ()
        labelled = {t.uri: t.label for t in tasks if t.label and live.blinds.recorded(record, t.uri) is False}
        features = FeatureStore(own, backbone, self._folder / record.key)
        cache.bound(self._folder, self._max_bytes)
        features.update()
        uris = [uri for uri in labelled if uri in features][-MOST:]
        rows = unit(_rows(features, uris)).astype(np.float16)
        labels = tuple(labelled[uri] or "" for uri in uris)
        return LabelledRows(latest.snapshot if latest else "", backbone, tuple(uris), labels, rows)


def _rows(features: FeatureStore, uris: Sequence[str]) -> Floats:
    try:
        return features.rows(uris)
    except (LostRowsError, KeyError, NotFoundError) as error:
        raise ProblemError(
            503, "features of labelled images are being computed again; try again later", retry_s=30
        ) from error
