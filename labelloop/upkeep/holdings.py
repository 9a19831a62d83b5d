"""A listing of a project's objects in, what each of them is out. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from labelloop.objects.storage import ObjectInfo

YOUNG = timedelta(days=1)  # what is younger may be half-written, or its reference be on its way


class What(StrEnum):
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
    (What.VERSION,),
    (What.REPORT, What.RUN, What.SCORES, What.SNAPSHOT, What.BACKBONE, What.INDEX),
    (What.HEAD, What.SHARD, What.WEIGHTS, What.ROWS, What.CHECKPOINT),
)
_KEYS = {
    What.VERSION: r"models/versions/(\d+)\.json",
    What.RUN: r"runs/([^/]+)\.json",
    What.SCORES: r"scores/([^/]+)/([^/]+)\.json",
    What.SNAPSHOT: r"snapshots/manifests/([^/]+)\.json",
    What.BACKBONE: r"backbones/([^/]+)/backbone\.json",
    What.INDEX: r"features/([^/]+)/index/([^/]+)\.json",
    What.HEAD: r"models/heads/([^/]+)\.safetensors",
    What.SHARD: r"snapshots/shards/([^/]+)\.jsonl\.gz",
    What.WEIGHTS: r"backbones/([^/]+)/weights\.safetensors",
    What.REPORT: r"reports/(v\d+)\.(json|html)",
    What.CHECKPOINT: r"checkpoints/([^/]+)/([^/]+)",
    What.ROWS: r"features/([^/]+)/rows/([^/]+)\.safetensors",
}
_PATTERNS = tuple((what, re.compile(pattern)) for what, pattern in _KEYS.items())


@dataclass(frozen=True, slots=True)
class Held:
    """One object and what its key says of it."""

    info: ObjectInfo
    what: What
    names: tuple[str, ...]  # e.g. (backbone, shard)

    @property
    def name(self) -> str:
        """What references call it: a version by its name, all else by the first part of the key that tells it apart."""
        return f"v{int(self.names[0])}" if self.what is What.VERSION else self.names[0]

    def is_young(self, now: datetime) -> bool:
        """Too young to be judged."""
        return now - self.info.modified < YOUNG


def classify(objects: Iterable[ObjectInfo]) -> list[Held]:
    """Each object by its key; one that is called like nothing we know is `other`."""
    return [_classified(info) for info in objects]


def _classified(info: ObjectInfo) -> Held:
    for what, pattern in _PATTERNS:
        if match := pattern.fullmatch(info.key):
            return Held(info, what, match.groups())
    return Held(info, What.OTHER, ())
