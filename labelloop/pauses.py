"""Whether a project's learning is frozen: by whom, since when and why. One object, so a lost Redis forgets nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from labelloop.clock import now
from labelloop.errors import AlreadyExistsError, CorruptArtefactError, NotFoundError, PausedError
from labelloop.formats import Kind, load, write
from labelloop.storage import ObjectStore

KEY = "paused.json"


@dataclass(frozen=True, slots=True)
class Pause:
    """A person's word that nothing is to be learned for now."""

    by: str
    at: str
    why: str = ""

    @property
    def told(self) -> str:
        """In words, e.g. `paused by anna since 2026-03-01 02:14 UTC: labels under review`."""
        return f"paused by {self.by} since {self.at[:16].replace('T', ' ')} UTC" + (f": {self.why}" if self.why else "")


class PauseStore:
    """One project's pause. There is none, or one."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def current(self) -> Pause | None:
        """The pause that holds now, or None; CorruptArtefactError where it cannot be read."""
        try:
            return load(Kind.PAUSE, self._store.get(KEY), Pause)
        except NotFoundError:
            return None
        except (ValueError, TypeError) as error:  # as good as paused: nobody may learn past it
            raise CorruptArtefactError(f"{KEY} cannot be read: end the pause with `labelloop resume`") from error

    def pause(self, *, by: str, why: str = "") -> Pause:
        """Freeze learning. One that holds already stays as it is, and is returned."""
        wanted = Pause(by, now(), why)
        try:
            self._store.put(KEY, write(Kind.PAUSE, asdict(wanted)), if_absent=True)
        except AlreadyExistsError:
            return self.current() or wanted
        return wanted

    def resume(self) -> None:
        """End the pause, also one that cannot be read; nothing where there is none."""
        self._store.delete(KEY)

    def check(self) -> None:
        """PausedError where learning is paused."""
        if found := self.current():
            raise PausedError(f"learning is {found.told}; `labelloop resume` ends it")
