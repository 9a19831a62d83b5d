"""Auto-labels in, a file of lines and its manifest in object storage out: kept apart from all that people said.

The manifest is written last: where it is, the lines are. A refusal leaves a manifest, too: who asks again and again
looks again and again at the same audit labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from labelloop.errors import CorruptObjectError
from labelloop.objects.damage import Damage
from labelloop.objects.formats import Kind, load, write
from labelloop.objects.storage import ObjectInfo, ObjectStore
from labelloop.records.json import canonical, digest, fields_of

PREFIX = "auto-labels/"
NAME = "auto-"  # in front of the version: what stands as a label's source, in files and in Label Studio


@dataclass(frozen=True, slots=True)
class AutoLabel:
    """One image and what the model alone says of it."""

    uri: str
    label: str
    probability: float
    bucket: str  # test and audit images are meant for people: their labels must not judge the model that gave them
    group: str  # images that show the same
    source: str  # never a person


@dataclass(frozen=True, slots=True)
class KeptPart:
    """Classes that share a threshold."""

    classes: tuple[str, ...]
    images: int
    labelled: int
    threshold: float | None
    bound: float | None
    audit: int
    wrong: int
    why: str = ""  # it is refused
    further: int | None = None  # audit labels that would do then; None: nobody knows


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was promised, and what for. Counts are of groups: images that show the same count once."""

    id: str
    version: str
    snapshot: str  # whose audit labels spoke, and whose labelled images were left out
    made_at: str
    by: str
    code: str
    precision: float
    confidence: float
    per_class: bool
    look: int  # how often the audit labels of this project have been asked, this time included
    images: int  # that nobody has labelled
    labelled: int
    audit: int  # the random sample
    drawn_from: int
    parts: tuple[KeptPart, ...]
    classes: dict[str, int]  # labels given, by class
    lines: int  # in the file: copies of an image have lines of their own
    sha256: str  # of the file

    @property
    def source(self) -> str:
        """What its labels are marked with, e.g. `auto-v17`."""
        return NAME + self.version

    @property
    def coverage(self) -> float:
        """Share of the pool that gets a label."""
        return self.labelled / max(1, self.images)

    def to_json(self) -> dict[str, Any]:
        """Plain values, with those that follow from the others."""
        return asdict(self) | {"coverage": self.coverage, "source": self.source}


class AutoLabelStore:
    """One project's."""

    def __init__(self, store: ObjectStore, damage: Damage | None = None) -> None:
        self._store = store
        self.damage = damage or Damage()

    def add(self, manifest: Manifest, lines: bytes) -> None:
        """Both; ``lines`` as `lines_of` makes them."""
        if lines:
            self._store.put(_key(manifest, "jsonl"), lines)
        self._store.put(_key(manifest, "json"), write(Kind.AUTO_LABELS, manifest.to_json()))

    def all(self) -> list[Manifest]:
        """Every time that somebody asked and that can be read, oldest first."""
        manifests = self.damage.intact(self._listed(), self._read, PREFIX)
        return sorted(manifests.values(), key=lambda m: m.id)

    def looks(self) -> int:
        """How often somebody asked: one whose manifest is damaged has looked all the same."""
        return sum(1 for _ in self._listed())

    def _listed(self) -> Iterator[ObjectInfo]:
        return (info for info in self._store.list(PREFIX) if info.key.endswith(".json"))

    def _read(self, key: str) -> Manifest:
        return load(Kind.AUTO_LABELS, self._store.get(key), Manifest, key)

    def labels(self, manifest: Manifest) -> Iterator[AutoLabel]:
        """What was given; CorruptObjectError where the file is not the one that was written."""
        key = _key(manifest, "jsonl")
        lines = self._store.get(key) if manifest.lines else b""
        if digest(lines) != manifest.sha256:
            raise CorruptObjectError(key, "it was changed after it was written")
        for line in lines.splitlines():
            yield AutoLabel(**fields_of(AutoLabel, json.loads(line)))


def lines_of(labels: Sequence[AutoLabel]) -> bytes:
    """One JSON object a line."""
    return b"".join(canonical(asdict(label)) + b"\n" for label in labels)


def is_auto(version: str) -> bool:
    """Whether predictions of this name are auto-labels."""
    return version.startswith(NAME + "v") and version.removeprefix(NAME + "v").isdigit()


def _key(manifest: Manifest, form: str) -> str:
    return f"{PREFIX}{manifest.version}/{manifest.id}.{form}"
