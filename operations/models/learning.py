"""A person's word that a project stops learning, or goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labelloop.errors import LeaseLostError, QueueError
from labelloop.queue.channels import NUDGE_CHANNEL, publish
from labelloop.queue.jobs import RETRAIN
from labelloop.queue.leases import RedisLease
from labelloop.records.evidence import Outcome
from labelloop.records.versions import LogEntry, Version
from labelloop.store.pauses import Pause, PauseStore
from labelloop.store.projects import ProjectRecord
from operations.deployment import Deployment


@dataclass(frozen=True, slots=True)
class Paused:
    """How it went."""

    pause: Pause
    already: bool  # somebody had paused before: theirs stays
    settled: bool  # no run that was under way can still deploy
    live: str | None  # what goes on answering


@dataclass(frozen=True, slots=True)
class Resumed:
    """How it went."""

    was: Pause | None  # None: nothing was paused
    left: tuple[str, ...]  # versions that the gate would have promoted meanwhile, and that are not made again


def pause(deployment: Deployment, record: ProjectRecord, *, by: str, why: str) -> Paused:
    """Freeze learning; when this returns, nothing goes live any more unless a person says so."""
    store = PauseStore(deployment.within(record))
    before = store.current()
    paused = store.pause(by=by, why=why)
    settled = _let_deploys_end(deployment, record)
    publish(deployment.queue.redis, NUDGE_CHANNEL, {"action": "pause", "project": record.key})
    live = deployment.registry(record).live()
    return Paused(paused, before is not None, settled, live.version if live else None)


def resume(deployment: Deployment, record: ProjectRecord) -> Resumed:
    """End the pause; what is wanted by now is derived at once."""
    store = PauseStore(deployment.within(record))
    was = store.current()
    store.resume()
    publish(deployment.queue.redis, NUDGE_CHANNEL, {"action": "resume", "project": record.key})
    registry = deployment.registry(record)
    return Resumed(was, left_over(registry.versions(), registry.deployments(), was.at) if was and was.at else ())


def reminder(deployment: Deployment, record: ProjectRecord) -> str | None:
    """A hint for those who deploy by hand meanwhile; None where learning goes on."""
    paused = PauseStore(deployment.within(record)).current()
    return f"learning is {paused.in_words}; `labelloop resume` ends it" if paused else None


def left_over(versions: Sequence[Version], deployments: Sequence[LogEntry], since: str) -> tuple[str, ...]:
    """Retrained versions that passed the gate after ``since`` and never went live: hours of work. Pure.

    Refreshes are left out: their labels are learned again at once.
    """
    deployed = {d.version for d in deployments}
    good = (v for v in versions if v.kind == RETRAIN.name and v.verdict.outcome is Outcome.PROMOTE)
    return tuple(v.name for v in good if v.created_at >= since and v.name not in deployed)


def _let_deploys_end(deployment: Deployment, record: ProjectRecord) -> bool:
    """A deploy checks the pause under this lease: after taking it, none is half-way."""
    try:
        with RedisLease(deployment.queue.redis, record.key)("deploy"):
            return True
    except (QueueError, LeaseLostError):
        return False
