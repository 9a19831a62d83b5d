"""An object of a project in, why its bytes cannot be those that were written out."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, field

from labelloop.formats import Kind, read
from labelloop.holdings import Held, What
from labelloop.records import digest

LOG = "deployments/"
CHANGED = "it was changed after it was written"
_KINDS = {
    What.VERSION: Kind.VERSION, What.RUN: Kind.RUN, What.SCORES: Kind.SCORES, What.SNAPSHOT: Kind.SNAPSHOT,
    What.BACKBONE: Kind.BACKBONE, What.INDEX: Kind.FEATURES,
}  # fmt: skip
_SEALS = {What.BACKBONE: (What.WEIGHTS, "weights_sha256"), What.INDEX: (What.ROWS, "sha256")}


@dataclass
class Inspector:
    """Looks at records before what they seal: weights and rows are judged by the hash that their record names."""

    _seals: dict[tuple[What, tuple[str, ...]], str] = field(default_factory=dict)

    def fault(self, held: Held, data: bytes) -> str | None:
        """Why it is damaged, or None. FormatError where a newer release wrote it."""
        kind = Kind.DEPLOYMENT if held.info.key.startswith(LOG) else _KINDS.get(held.what)
        if kind:
            return self._of_record(kind, held, data)
        if held.what is What.SHARD:
            return _of_shard(held.name, data)
        if held.what is What.HEAD:
            return CHANGED if digest(data)[:32] != held.name else None
        seal = self._seals.get((held.what, held.names))
        return CHANGED if seal and digest(data) != seal else None

    def _of_record(self, kind: Kind, held: Held, data: bytes) -> str | None:
        try:
            found = read(kind, data)
            if held.what in _SEALS:
                sealed, name = _SEALS[held.what]
                self._seals[sealed, held.names] = str(found[name])
        except (ValueError, KeyError) as error:
            return f"it cannot be read ({type(error).__name__}: {error})"
        return CHANGED if held.what is What.SNAPSHOT and digest(data)[:32] != held.name else None


def _of_shard(name: str, data: bytes) -> str | None:
    try:
        text = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        return f"it cannot be unpacked ({error})"
    return CHANGED if digest(text)[:32] != name else None
