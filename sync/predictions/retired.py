"""Predictions of replaced versions in Label Studio: kept while a page that shows one may still be open.

A page submits with the id of the prediction that it was opened with, and Label Studio refuses an answer whose
prediction is gone: a person who looked at one image for longer than a refresh takes would lose their label.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from labelloop.clock import LocalAges

KEEP_S = 24 * 3600.0  # Label Studio keeps an opened task for its person as long
MOST = 20_000  # predictions of replaced versions: as many cost `next` nothing that can be measured
LEAST_S = 600.0  # however many there are
QUIET_S = 60.0  # nobody has submitted for so long: while hundreds of predictions are deleted, `next` waits
PRESSED_S = 3.0  # the same where there are too many


class Retired:
    """How many predictions of each version stand in Label Studio, and which versions' may go."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._replaced = LocalAges()  # its ages begin again with the watcher: then they are kept longer

    def recount(self, counts: Mapping[str, int]) -> None:
        """What Label Studio says that it has."""
        self._counts = dict(counts)

    def pushed(self, version: str, more: int) -> None:
        """So many more of this version."""
        self._counts[version] = self.count(version) + more

    def count(self, version: str) -> int:
        """Predictions of one version that are there now."""
        return self._counts.get(version, 0)

    def deleted(self, version: str) -> None:
        """None is left of this version."""
        self._counts.pop(version, None)

    def due(self, live: str, ours: Iterable[str], idle_s: float) -> str | None:
        """The version whose predictions may go next, the longest replaced first; others than ``ours`` never."""
        ages = self._replaced.ages_s(v for v in ours if v != live and self.count(v))
        if not ages:
            return None
        oldest = max(ages, key=lambda version: ages[version])
        crowded = sum(map(self.count, ages)) > MOST
        keep_s, quiet_s = (LEAST_S, PRESSED_S) if crowded else (KEEP_S, QUIET_S)
        return oldest if ages[oldest] >= keep_s and idle_s >= quiet_s else None
