"""Whether a project's learning is frozen: by whom, since when and why. One object, so a lost Redis forgets nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from labelloop.clock import now
from labelloop.errors import AlreadyExistsError, NotFoundError, PausedError
from labelloop.objects.damage import UNREADABLE, Damage
from labelloop.objects.formats import Kind, load, write
from labelloop.objects.storage import ObjectStore

KEY = "paused.json"


@dataclass(frozen=True, slots=True)
class Pause:
    """A person's word that nothing is to be learned for now."""

    by: str
    at: str
    why: str = ""

    @property
    def in_words(self) -> str:
        """In words, e.g. `paused by anna since 2026-03-01 02:14 UTC: labels under review`."""
        since = f" since {self.at[:16].replace('T', ' ')} UTC" if self.at else ""
        return f"paused by {self.by}{since}" + (f": {self.why}" if self.why else "")


class PauseStore:
    """One project's pause. There is none, or one."""

    def __init__(self, store: ObjectStore, damage: Damage | None = None) -> None:
        self._store = store
        self._damage = damage or Damage()

    def current(self) -> Pause | None:
        """The pause that holds now, or None. One that cannot be read holds, too: nobody may learn past it."""
        try:
            return load(Kind.PAUSE, self._store.get(KEY), Pause, KEY)
        except NotFoundError:
            return None
        except UNREADABLE as error:
            self._damage.note(KEY, error)
            return Pause("somebody", "", f"{error}")

    def pause(self, *, by: str, why: str = "") -> Pause:
        """Freeze learning. One that holds already stays as it is, and is returned."""
        pause = Pause(by, now(), why)
        try:
            self._store.put(KEY, write(Kind.PAUSE, asdict(pause)), if_absent=True)
        except AlreadyExistsError:
            return self.current() or pause
        return pause

    def resume(self) -> None:
        """End the pause, also one that cannot be read; nothing where there is none."""
        self._store.delete(KEY)
        self._damage.resolved(KEY)

    def check(self) -> None:
        """PausedError where learning is paused."""
        if pause := self.current():
            raise PausedError(f"learning is {pause.in_words}; `labelloop resume` ends it")
