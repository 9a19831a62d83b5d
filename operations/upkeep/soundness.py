"""An object of a project in, why its bytes cannot be those that were written out."""

from __future__ import annotations

from dataclasses import dataclass, field

from labelloop.objects.formats import Kind, read
from labelloop.records.json import digest
from labelloop.store.registry import LOG
from labelloop.store.snapshots import CHANGED
from labelloop.upkeep.inspection import fault_of
from labelloop.upkeep.object_kinds import ObjectKind, StoredObject

_KINDS = {
    ObjectKind.VERSION: Kind.VERSION, ObjectKind.RUN: Kind.RUN, ObjectKind.SCORES: Kind.SCORES,
    ObjectKind.SNAPSHOT: Kind.SNAPSHOT, ObjectKind.BACKBONE: Kind.BACKBONE, ObjectKind.INDEX: Kind.FEATURES,
}  # fmt: skip
_SEALS = {ObjectKind.BACKBONE: (ObjectKind.WEIGHTS, "weights_sha256"), ObjectKind.INDEX: (ObjectKind.ROWS, "sha256")}


@dataclass
class Inspector:
    """Looks at records before what they seal: weights and rows are judged by the hash that their record names."""

    _seals: dict[tuple[ObjectKind, tuple[str, ...]], str] = field(default_factory=dict)

    def fault(self, held: StoredObject, data: bytes) -> str | None:
        """Why it is damaged, or None. FormatError where a newer release wrote it."""
        kind = Kind.DEPLOYMENT if held.info.key.startswith(LOG) else _KINDS.get(held.what)
        if kind:
            return self._of_record(kind, held, data) or (None if held.what in _SEALS else fault_of(held.info.key, data))
        seal = self._seals.get((held.what, held.names))
        if seal:
            return CHANGED if digest(data) != seal else None
        return fault_of(held.info.key, data)

    def _of_record(self, kind: Kind, held: StoredObject, data: bytes) -> str | None:
        try:
            content = read(kind, data)
            if held.what in _SEALS:
                sealed, name = _SEALS[held.what]
                self._seals[sealed, held.names] = str(content[name])
        except (ValueError, KeyError) as error:
            return f"it cannot be read ({type(error).__name__}: {error})"
        return CHANGED if held.what is ObjectKind.SNAPSHOT and digest(data)[:32] != held.name else None
