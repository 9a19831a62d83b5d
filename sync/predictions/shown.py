"""An answer and the moments at which versions were switched in, what its author had before them out.

Label Studio notes with each answer what the project's version *at the submit* says of the task. A page that was opened
a moment before a switch still shows the version before: with many people at work that is every second page.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from labelloop.clock import parse
from labelloop.records.tasks import Annotation, QueuePlace, Seen
from labelloop.records.versions import COLD_START
from labelloop.rules.acquisition.order import QUOTA

KEPT = 500  # switches
DOUBT = timedelta(seconds=0.3)  # around a switch, beside the time that it took: two clocks, and the page's own loading

Look = Callable[[str, str], QueuePlace | None]  # (version, uri) -> its place in that version's order


@dataclass(frozen=True, slots=True)
class Switch:
    """From ``began`` to ``ended`` it is open which version a page shows; then it is this one."""

    version: str
    began: datetime
    ended: datetime


class Seeing:
    """Remembers switches, memory only: of what was opened before the first of them Label Studio's word is taken."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._switches: deque[Switch] = deque(maxlen=KEPT)

    def switched(self, version: str, began: datetime, ended: datetime) -> None:
        """Label Studio shows this version from now on."""
        self._switches.append(Switch(version, began - DOUBT, ended + DOUBT))

    def of(self, uri: str, annotation: Annotation) -> Seen | None:
        """What the author had before them; None where nothing was, or where that cannot be told."""
        before_them = self._filled(uri, annotation.seen)
        opened = _opened(annotation)
        later = [s for s in self._switches if s.ended > opened and s.began < parse(annotation.created_at)]
        if not later:
            return before_them
        before, switch = self._before(later[0]), later[0]
        shown = self._shown(before, uri) if before else None
        if opened < switch.began or shown is None:
            return shown
        return shown if _alike(shown, self._shown(switch.version, uri)) else None

    def _before(self, switch: Switch) -> str | None:
        switches = list(self._switches)
        place = switches.index(switch)
        return switches[place - 1].version if place else None

    def _filled(self, uri: str, seen: Seen | None) -> Seen | None:
        """With the answer that was kept from the author."""
        if seen is None or not seen.blind or seen.version == COLD_START:
            return seen
        place = self._look(seen.version, uri)
        if place is None or not place.blind:  # nothing was shown, but not by design
            return Seen(seen.version, None, blind=True)
        return _seen(seen.version, place)

    def _shown(self, version: str, uri: str) -> Seen | None:
        place = self._look(version, uri)
        return _seen(version, place) if place else None


def _seen(version: str, place: QueuePlace) -> Seen:
    if place.label is None:
        return Seen(version, None, blind=True)
    chosen = place.blind and place.why != QUOTA
    return Seen(version, place.label, place.blind, place.probability, chosen)


def _opened(annotation: Annotation) -> datetime:
    return parse(annotation.created_at) - timedelta(seconds=annotation.lead_time_s or 0.0)


def _alike(one: Seen, other: Seen | None) -> bool:
    return other is not None and (one.label, one.blind) == (other.label, other.blind)
