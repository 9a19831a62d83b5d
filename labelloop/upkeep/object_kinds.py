"""A listing of a project's objects in, what each of them is out. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from labelloop.objects.storage import ObjectInfo

YOUNG = timedelta(days=1)  # what is younger may be half-written, or its reference be on its way


class ObjectKind(StrEnum):
    """Kinds of objects."""

    VERSION = "model version"
    RUN = "run record"
    SCORES = "score order"
    SNAPSHOT = "snapshot"
    BACKBONE = "backbone"
    INDEX = "feature index"
    HEAD = "head"
    SHARD = "snapshot shard"
    WEIGHTS = "backbone weights"
    ROWS = "feature rows"
    CHECKPOINT = "training checkpoint"
    REPORT = "report"
    OTHER = "other"


PHASES = (  # what names others goes before what it names: a crash in between leaves garbage, and nothing dangles
    (ObjectKind.VERSION,),
    (ObjectKind.REPORT, ObjectKind.RUN, ObjectKind.SCORES, ObjectKind.SNAPSHOT, ObjectKind.BACKBONE, ObjectKind.INDEX),
    (ObjectKind.HEAD, ObjectKind.SHARD, ObjectKind.WEIGHTS, ObjectKind.ROWS, ObjectKind.CHECKPOINT),
)
_KEYS = {
    ObjectKind.VERSION: r"models/versions/(\d+)\.json",
    ObjectKind.RUN: r"runs/([^/]+)\.json",
    ObjectKind.SCORES: r"scores/([^/]+)/([^/]+)\.json",
    ObjectKind.SNAPSHOT: r"snapshots/manifests/([^/]+)\.json",
    ObjectKind.BACKBONE: r"backbones/([^/]+)/backbone\.json",
    ObjectKind.INDEX: r"features/([^/]+)/index/([^/]+)\.json",
    ObjectKind.HEAD: r"models/heads/([^/]+)\.safetensors",
    ObjectKind.SHARD: r"snapshots/shards/([^/]+)\.jsonl\.gz",
    ObjectKind.WEIGHTS: r"backbones/([^/]+)/weights\.safetensors",
    ObjectKind.REPORT: r"reports/(v\d+)\.(json|html)",
    ObjectKind.CHECKPOINT: r"checkpoints/([^/]+)/([^/]+)",
    ObjectKind.ROWS: r"features/([^/]+)/rows/([^/]+)\.safetensors",
}
_PATTERNS = tuple((what, re.compile(pattern)) for what, pattern in _KEYS.items())


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object and what its key says of it."""

    info: ObjectInfo
    what: ObjectKind
    names: tuple[str, ...]  # e.g. (backbone, shard)

    @property
    def name(self) -> str:
        """What references call it: a version by its name, all else by the first part of the key that tells it apart."""
        return f"v{int(self.names[0])}" if self.what is ObjectKind.VERSION else self.names[0]

    def is_young(self, now: datetime) -> bool:
        """Too young to be judged."""
        return now - self.info.modified < YOUNG


def classify(objects: Iterable[ObjectInfo]) -> list[StoredObject]:
    """Each object by its key; one that is called like nothing we know is `other`."""
    return [_classified(info) for info in objects]


def _classified(info: ObjectInfo) -> StoredObject:
    for what, pattern in _PATTERNS:
        if match := pattern.fullmatch(info.key):
            return StoredObject(info, what, match.groups())
    return StoredObject(info, ObjectKind.OTHER, ())
