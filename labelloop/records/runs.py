"""One attempt of a job that decides something, and the short names of runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labelloop.errors import NotFoundError

TRANSIENT = "transient"  # in a run's detail: a store, Redis or the disk failed it, not its inputs
WITHOUT = "without"  # in a run's detail: labelled images that it did not learn from, as they had no features
AGAIN = "again"  # in a run's detail: held back by a pause, its inputs are run again afterwards


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt. ``outcome``: running, promote, hold, reject, or failed."""

    id: str
    kind: str  # refresh | retrain
    snapshot: str
    config: str
    attempt: int
    started_at: str
    worker: str
    queued_at: str | None = None
    outcome: str = "running"
    answers: tuple[str, ...] = ()  # people's requests that it was queued for; times cannot tell, clocks differ
    reasons: tuple[str, ...] = ()
    version: str | None = None
    ended_at: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""  # code_version() of who ran it
    recipe: str = ""  # of a retrain: ProjectConfig.recipe
    training: str = ""  # training_code() of who ran it
    images: int | None = None  # with features when a retrain began; None: not recorded
    wish: str = ""  # what it was to answer (`labelloop.store.verdicts`): one verdict for each

    @property
    def done(self) -> bool:
        """True where it came to a verdict: the same inputs need no further run. One that a pause held back did not."""
        return self.outcome in {"promote", "hold", "reject"} and not self.detail.get(AGAIN)

    @property
    def short(self) -> str:
        """The part of the id that is drawn at random: enough to tell runs apart."""
        return short_of(self.id)


def match(ids: Sequence[str], name: str) -> str:
    """The one id that begins with ``name``, or whose short part does; NotFoundError says which are near."""
    matches = [i for i in ids if short_of(i) == name]
    matches = matches or [i for i in ids if name and (i.startswith(name) or short_of(i).startswith(name))]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise NotFoundError(f"no run is called {name!r}; `labelloop runs` lists them")
    near = ", ".join(matches[:4])
    raise NotFoundError(f"{len(matches)} runs begin with {name!r}: give more of it, e.g. one of {near}")


def shared(ids: Iterable[str]) -> set[str]:
    """Short ids that more than one run has: only the whole id names these."""
    return {short for short, n in Counter(map(short_of, ids)).items() if n > 1}


def short_of(name: str) -> str:
    """The part of a run's id that is drawn at random."""
    return name.partition("-")[2].partition("-")[0]
