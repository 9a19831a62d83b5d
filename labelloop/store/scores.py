"""The queue's order as the model sees it: written by `score`, pushed into Label Studio by `sync`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from labelloop.clock import now, stamp
from labelloop.objects.damage import UNREADABLE, Damage
from labelloop.objects.formats import Kind, load, write
from labelloop.objects.storage import ObjectStore
from labelloop.records.tasks import QueuePlace


@dataclass(frozen=True, slots=True)
class Scores:
    """One computed order. ``places`` are in order, the first to be shown first."""

    id: str
    version: str
    snapshot: str | None  # whose labels were left out
    pool: int  # images that had features
    policy: str  # why this order, in words
    places: tuple[QueuePlace, ...]
    made_at: str

    @property
    def by_uri(self) -> Mapping[str, QueuePlace]:
        """Uri -> place."""
        return {place.uri: place for place in self.places}


class ScoreStore:
    """One project's orders; the newest of a version counts."""

    def __init__(self, store: ObjectStore, damage: Damage | None = None) -> None:
        self._store = store
        self.damage = damage or Damage()
        self._read: dict[str, Scores] = {}
        self._newest: dict[str, str] = {}  # version -> key of its newest order: only later ones are listed

    def add(
        self, version: str, *, snapshot: str | None, pool: int, policy: str, places: Sequence[QueuePlace]
    ) -> Scores:
        """Write one order."""
        scores = Scores(stamp(), version, snapshot, pool, policy, tuple(places), now())
        self._store.put(f"scores/{version}/{scores.id}.json", write(Kind.SCORES, asdict(scores)))
        return scores

    def newest(self, version: str) -> Scores | None:
        """The order to push for a version, the newest that can be read; None before there is one."""
        prefix = f"scores/{version}/"
        self.damage.recheck(prefix, self._get)
        later = list(self._store.list(prefix, start_after=self._newest.get(version, prefix)))
        for info in reversed(later):
            if self.damage.is_noted(info):
                continue
            try:
                scores = self._get(info.key)
            except UNREADABLE as error:
                self.damage.note(info.key, error, info.etag)
                continue
            self._newest[version] = info.key
            return scores
        key = self._newest.get(version)
        return self._get(key) if key else None

    def _get(self, key: str) -> Scores:
        if key not in self._read:
            scores = load(Kind.SCORES, self._store.get(key), Scores, key)
            self._read = {**dict(list(self._read.items())[-7:]), key: scores}
        return self._read[key]
