"""Immutable objects named by time: those that came since the last look, found without listing all of them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from labelloop.errors import NotFoundError
from labelloop.objects.damage import Damage
from labelloop.objects.storage import ObjectStore

SKEW = timedelta(minutes=5)  # how far the clocks of those who name objects may lie apart, delays included
WHOLE_EVERY_S = 300.0  # a listing of everything: for clocks that are worse, and for what has vanished
READERS = 16
AT_ONCE = 64  # objects read ahead
FEW = 4  # objects for which threads are not worth while

_STAMP = re.compile(r"\d{8}T\d{6}")


class Shards:
    """What is new under one prefix. Names are those of `labelloop.clock.stamp`; any others are listed as a whole."""

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        damage: Damage | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store, self._prefix, self._clock, self._today = store, prefix, clock, today
        self._damage = damage or Damage()
        self.taken: set[str] = set()  # keys that were read
        self.vanished: set[str] = set()  # keys that were read and are no more there, by the last whole listing
        self._refused: set[str] = set()
        self._whole_at = float("-inf")
        self._ahead: tuple[datetime, float] | None = None  # the latest name, and when it was seen

    def arrivals(self) -> Iterator[tuple[str, bytes]]:
        """(key, bytes) of what was not taken yet, by key. It is taken as soon as the next one is asked for."""
        for key, data in self._fetched(self._listed()):
            if data is None:  # gone since it was listed: what holds its content now may lie far back
                self.look_at_all()
                continue
            yield key, data
            if key not in self._refused:
                self.taken.add(key)

    def refuse(self, key: str, error: Exception) -> None:
        """It cannot be read: noted, and it comes again with the next listing of everything, not before."""
        self._damage.note(key, error)
        self._refused.add(key)

    def look_at_all(self) -> None:
        """Make the next listing a whole one."""
        self._whole_at = float("-inf")

    def _listed(self) -> list[str]:
        moment = self._clock()
        whole = moment - self._whole_at > WHOLE_EVERY_S
        keys = [info.key for info in self._store.list(self._prefix, start_after="" if whole else self._from(moment))]
        if whole:
            self._whole_at = moment
            self._refused = set()
            for key in set(self._damage.keys(self._prefix)) - set(keys):
                self._damage.resolved(key)
            self.vanished = self.taken - set(keys)
            self.taken -= self.vanished
        if keys:
            self._see(keys[-1], moment)
        return [key for key in keys if key not in self.taken and key not in self._refused]

    def _see(self, key: str, moment: float) -> None:
        match = _STAMP.match(key.removeprefix(self._prefix))
        try:
            named = datetime.strptime(match[0] if match else "", "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        except ValueError:
            self._ahead = None
            return
        if self._ahead is None or named > self._fastest(moment):
            self._ahead = (named, moment)

    def _fastest(self, moment: float) -> datetime:
        """What time it is now by the clock that is furthest ahead."""
        assert self._ahead is not None
        return self._ahead[0] + timedelta(seconds=moment - self._ahead[1])

    def _from(self, moment: float) -> str:
        """A clock that is far ahead of ours, too, must not hide the others' names."""
        if self._ahead is None:
            return ""
        begin = min(self._fastest(moment), self._today()) - SKEW
        return f"{self._prefix}{begin:%Y%m%dT%H%M%S}"

    def _fetched(self, keys: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
        if len(keys) <= FEW:
            yield from ((key, self._get(key)) for key in keys)
            return
        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, len(keys), AT_ONCE):
                part = keys[start : start + AT_ONCE]
                yield from zip(part, pool.map(self._get, part), strict=True)

    def _get(self, key: str) -> bytes | None:
        try:
            return self._store.get(key)
        except NotFoundError:
            return None
