"""A person's decisions about versions: promote, reject, roll back. The command line and the API ask here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labelloop.errors import ConflictError
from labelloop.queue.channels import DEPLOY_CHANNEL, publish
from labelloop.store.projects import ProjectRecord
from labelloop.store.registry import Registry
from labelloop.upkeep.rollback import intact_way_back
from operations.deployment import Deployment
from operations.models.learning import reminder


@dataclass(frozen=True, slots=True)
class Decided:
    """How it went."""

    version: str  # what is champion now
    previous: str | None  # what was before
    changed: bool  # False: it was live already
    skipped: tuple[tuple[str, str], ...] = ()  # of a rollback: versions that cannot be read, and why
    paused: str | None = None  # a hint where learning is paused


def promote(deployment: Deployment, record: ProjectRecord, version: str, *, by: str, why: str) -> Decided:
    """Make a version the champion, regardless of the gate; NotFoundError, ConflictError, CorruptArtefactError."""
    return _deploy(deployment, record, lambda _registry: (version, ()), "promote", by=by, why=why)


def rollback(deployment: Deployment, record: ProjectRecord, *, by: str, why: str) -> Decided:
    """Go back to the newest intact version before the champion; ConflictError where there is none."""
    return _deploy(deployment, record, _way_back, "rollback", by=by, why=why)


def reject(deployment: Deployment, record: ProjectRecord, version: str, *, by: str, why: str) -> Decided:
    """Refuse a version for good; NotFoundError, ConflictError where it is live."""
    deployment.version(record, version)  # unknown: said before anything is decided
    entry = deployment.registry(record).reject(version, by=by, why=why)
    return Decided(entry.version, entry.previous, changed=False)


Choice = tuple[str, tuple[tuple[str, str], ...]]


def _way_back(registry: Registry) -> Choice:
    back = intact_way_back(registry)
    if back.version is None:
        why = "".join(f"; {name} is skipped: {reason}" for name, reason in back.skipped)
        raise ConflictError(f"there is no earlier version to go back to; see `labelloop models`{why}")
    return back.version, back.skipped


def _deploy(
    deployment: Deployment, record: ProjectRecord, choose: Callable[[Registry], Choice], action: str, *, by: str,
    why: str,
) -> Decided:  # fmt: skip
    registry = deployment.registry(record)
    target, skipped = choose(registry)
    registry.head(deployment.version(record, target))  # unknown or damaged: refused here, before any backend has to
    live = registry.live()
    if live and live.version == target:
        return Decided(target, target, changed=False, skipped=skipped)
    entry = registry.deploy(target, expected=live.version if live else None, action=action, by=by, why=why)
    publish(deployment.queue.redis, DEPLOY_CHANNEL, record.key)
    return Decided(entry.version, entry.previous, changed=True, skipped=skipped, paused=reminder(deployment, record))
