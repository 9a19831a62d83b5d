"""One verdict per wish, whatever process dies: who may begin a run, who may end it, what a dead one has delivered.

A wish is the next verdict of its kind: `retrain-13` follows the twelfth. It is answered by the first record that ends
with a verdict, or by the first deployment, which a dying worker may have left without such a record. Nothing here
depends on a clock: a worker that was believed dead finds its record ended, and delivers nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import structlog

from labelloop.errors import LeaseLostError, NotFoundError, QueueError, SupersededError
from labelloop.records.json import to_dict
from labelloop.records.runs import TRANSIENT, Run
from labelloop.records.versions import LogEntry
from labelloop.store.registry import Registry
from labelloop.store.runs import Claim, RunStore

LEASE = "verdicts"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, as its record says it."""

    outcome: str
    reasons: tuple[str, ...]
    version: str | None = None
    detail: dict[str, Any] | None = None


def next_wish(kind: str, runs: Iterable[Run], deployments: Iterable[LogEntry]) -> str:
    """What the next run of a kind is to answer."""
    answered = (*(r.wish for r in runs if r.done), *(d.wish for d in deployments))
    return f"{kind}-{1 + max(_numbers(kind, answered), default=0)}"


def _numbers(kind: str, wishes: Iterable[str]) -> Iterator[int]:
    for wish in wishes:
        name, _, number = wish.rpartition("-")
        if name == kind and number.isdigit():
            yield int(number)


def left_by(run: Run, registry: Registry) -> Ending:
    """How a run ended whose worker died: with what it had delivered by then."""
    entry = next((d for d in registry.deployments() if d.run == run.id), None)
    return _delivered(entry, registry) if entry else Ending("failed", ("its worker died before the run ended",))


def _delivered(entry: LogEntry, registry: Registry) -> Ending:
    try:
        version = registry.version(entry.version)
    except NotFoundError:  # beyond retention
        return Ending("promote", (entry.why,), entry.version)
    detail = {"evaluation": to_dict(version.evaluation)}
    return Ending(version.verdict.outcome.value, version.verdict.reasons, entry.version, detail)


class Verdicts:
    """One project's. The lease keeps two from beginning the same; the records decide the rest."""

    def __init__(self, runs: RunStore, registry: Registry) -> None:
        self._runs, self._registry = runs, registry

    def begin(self, kind: str, wish: str, start: Callable[[str], Run]) -> Claim:
        """A record by ``start`` (it gets the wish); SupersededError where the wish is answered, or under way.

        ``wish``: empty where a watcher of an older release has queued it.
        """
        with self._registry.lease(LEASE):
            wish = wish or next_wish(kind, self._runs.all(), self._registry.deployments())
            self._require_open(kind, wish)
            entry = self._deployed(wish)
            run = start(wish)
            if entry:  # the worker that delivered it died before it could say so
                self._end(run, _delivered(entry, self._registry))
                raise SupersededError(f"{wish} was answered by {entry.version}, whose run {entry.run} never ended")
        return Claim(run, lambda: self._check(run))

    def end(self, run: Run, ending: Ending) -> None:
        """Write the verdict; SupersededError where the run was given up, or somebody else was first."""
        with self._exclusively():
            self._check(run)
            self._end(run, ending)

    def fail(self, run: Run, ending: Ending) -> None:
        """End a run that failed, unless somebody has; what it had deployed by then counts all the same."""
        left = left_by(run, self._registry)
        with suppress(SupersededError):
            self._end(run, ending if left.outcome == "failed" else left)

    def give_up(self, run: Run, why: str) -> None:
        """End a superseded run, if nobody has: with what was deployed for its wish, else without a verdict."""
        entry, done = self._deployed(run.wish), self._done(run.wish)
        with suppress(SupersededError):
            self._end(
                run, Ending("failed", (why,), detail={TRANSIENT: True}) if done or not entry
                else _delivered(entry, self._registry),
            )  # fmt: skip

    def _end(self, run: Run, ending: Ending) -> None:
        self._runs.end(run, ending.outcome, ending.reasons, version=ending.version, detail=ending.detail)

    def _exclusively(self) -> ExitStack:
        """Without Redis too: hours of work are not lost for it, and the record itself is swapped only once."""
        stack = ExitStack()
        try:
            stack.enter_context(self._registry.lease(LEASE))
        except (QueueError, LeaseLostError) as error:
            log.warning("a run ends without the lease", action="verdict", reason=str(error))
        return stack

    def _check(self, run: Run) -> None:
        self._runs.require_running(run)
        done, entry = self._done(run.wish), self._deployed(run.wish)
        if done or (entry and entry.run != run.id):
            by = f"run {done.id}" if done else f"{entry.version}" if entry else ""
            raise SupersededError(f"{run.wish} was answered by {by} while run {run.id} was under way")

    def _require_open(self, kind: str, wish: str) -> None:
        done = self._done(wish)
        if done:
            raise SupersededError(f"{wish} has been answered by run {done.id}")
        running = next((r for r in self._runs.all() if r.kind == kind and r.outcome == "running"), None)
        if running:  # if its worker is dead the watcher ends it, and asks again
            raise SupersededError(f"{wish} is under way: run {running.id} on {running.worker}")

    def _done(self, wish: str) -> Run | None:
        return next((r for r in self._runs.all() if r.done and r.wish == wish), None)

    def _deployed(self, wish: str) -> LogEntry | None:
        return next((d for d in self._registry.deployments() if d.wish == wish), None)
