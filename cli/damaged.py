"""A project's objects in, those that cannot be read out; and set aside, where a person wants that."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cli.deployment import Deployment
from labelloop.errors import FormatError, NotFoundError, SettingsError
from labelloop.inspection import fault_of, is_known
from labelloop.projects import ProjectRecord
from labelloop.registry import ASIDE
from labelloop.remedies import remedy_of
from labelloop.storage import ObjectStore

READERS = 16
# what nothing needs: all else is healed by itself, or says something that must not be forgotten (a bucket, a pause)
_SPARE = re.compile(
    r"(deployments|models/versions|runs|requests|configs|scores|studies|lr_curves|reports|features/[^/]+/index"
    r"|mirror/index|snapshots/manifests|snapshots/shards)/.+|curve\.json|gc\.json"
)


@dataclass(frozen=True, slots=True)
class DamagedObject:
    """``key``: in the state bucket. ``spare``: it can be set aside."""

    key: str
    reason: str
    remedy: str
    spare: bool = False


def damaged_records(deployment: Deployment) -> list[DamagedObject]:
    """Projects whose record cannot be read, or only by its copy."""
    deployment.projects.all()
    return [DamagedObject(d.key, d.reason, d.remedy) for d in deployment.projects.damaged()]


def damaged_objects(deployment: Deployment, record: ProjectRecord) -> list[DamagedObject]:
    """All of one project; reads every record, but neither weights nor rows of features."""
    store, prefix = deployment.within(record), prefix_of(record.key)
    keys = [info.key for info in store.list("") if is_known(info.key)]
    with ThreadPoolExecutor(READERS) as pool:
        faults = pool.map(lambda key: _fault(store, key), keys)
        return [
            DamagedObject(prefix + key, why, remedy_of(key), bool(_SPARE.fullmatch(key)))
            for key, why in zip(keys, faults, strict=True)
            if why
        ]


def set_aside(deployment: Deployment, record: ProjectRecord, found: Sequence[DamagedObject]) -> list[str]:
    """Move what nothing needs under `damaged/`, from where it can be had; returns where to."""
    store, prefix, moved = deployment.within(record), prefix_of(record.key), []
    for item in found:
        key = item.key.removeprefix(prefix)
        if item.spare:
            store.put(ASIDE + key, store.get(key))
            store.delete(key)
            moved.append(prefix + ASIDE + key)
    return moved


def prefix_of(project: str) -> str:
    """Of a project's keys in the state bucket."""
    return f"projects/{project}/"


def _fault(store: ObjectStore, key: str) -> str | None:
    try:
        return fault_of(key, store.get(key))
    except NotFoundError:  # tidied away since it was listed
        return None
    except (FormatError, SettingsError) as error:
        return str(error)
