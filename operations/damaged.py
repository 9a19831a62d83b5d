"""A project's objects in, those that cannot be read out; and set aside, where a person wants that."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from labelloop.errors import CorruptObjectError, FormatError, NotFoundError, SettingsError
from labelloop.objects.storage import ObjectStore
from labelloop.records.json import digest
from labelloop.remedies import UPGRADE, remedy_of
from labelloop.store.features import FeatureIndex
from labelloop.store.projects import ProjectRecord
from labelloop.store.registry import ASIDE, CHANGED
from labelloop.upkeep.inspection import fault_of, is_known
from operations.deployment import Deployment

READERS = 16
ROWS_BYTES = 256 * 2**20
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
        return [fault.of(prefix, key) for key, fault in zip(keys, faults, strict=True) if fault]


def damaged_artefacts(deployment: Deployment, record: ProjectRecord) -> tuple[list[DamagedObject], int, int]:
    """Weights and rows of features of the live network by their recorded hashes; bytes that were read, shards left out.

    Rows, the newest first, as far as `ROWS_BYTES` go: those of a large pool are read when they are needed.
    """
    store, prefix = deployment.within(record), prefix_of(record.key)
    registry = deployment.registry(record)
    if (backbone := registry.current_backbone()) is None:
        return [], 0, 0
    faults = dict[str, str]()
    try:
        read = len(registry.backbone_weights(backbone))
    except CorruptObjectError as error:
        faults[error.key], read = error.reason, 0
    index = FeatureIndex(store, backbone.id)
    index.update()
    left = sorted({place.shard for place in index.places.values()})  # others were computed again since
    while left and read < ROWS_BYTES:
        shard = left.pop()
        key = index.rows_key(shard)
        try:
            raw = store.get(key)
        except NotFoundError:  # taken over by a larger one
            continue
        read += len(raw)
        if digest(raw) != index.sha256(shard):
            faults[key] = CHANGED
    return [DamagedObject(prefix + key, why, remedy_of(key)) for key, why in faults.items()], read, len(left)


def set_aside(deployment: Deployment, record: ProjectRecord, damaged: Sequence[DamagedObject]) -> list[str]:
    """Move what nothing needs under `damaged/`, from where it can be had; returns where to."""
    store, prefix, moved = deployment.within(record), prefix_of(record.key), []
    for item in damaged:
        key = item.key.removeprefix(prefix)
        if item.spare:
            store.put(ASIDE + key, _bytes(store, key))
            store.delete(key)
            moved.append(prefix + ASIDE + key)
    return moved


def _bytes(store: ObjectStore, key: str) -> bytes:
    """Of what is too large to be read only why: its number stays taken all the same."""
    try:
        return store.get(key)
    except CorruptObjectError as error:
        return str(error).encode()


def prefix_of(project: str) -> str:
    """Of a project's keys in the state bucket."""
    return f"projects/{project}/"


@dataclass(frozen=True, slots=True)
class _Fault:
    reason: str
    newer: bool = False  # not damaged: a newer release needs it, so it is never set aside

    def of(self, prefix: str, key: str) -> DamagedObject:
        remedy = UPGRADE if self.newer else remedy_of(key)
        return DamagedObject(prefix + key, self.reason, remedy, not self.newer and bool(_SPARE.fullmatch(key)))


def _fault(store: ObjectStore, key: str) -> _Fault | None:
    try:
        reason = fault_of(key, store.get(key))
        return _Fault(reason) if reason else None
    except NotFoundError:  # tidied away since it was listed
        return None
    except FormatError as error:
        return _Fault(str(error), newer=True)
    except CorruptObjectError as error:
        return _Fault(error.reason)
    except SettingsError as error:
        return _Fault(str(error))
