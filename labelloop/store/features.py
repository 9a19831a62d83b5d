"""The kept features: one row per (image, backbone), in immutable shards with a local memory-mapped copy."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from labelloop.clock import now, parse
from labelloop.errors import LostRowsError, NotFoundError
from labelloop.objects.compaction import Replaced, merged_name
from labelloop.objects.damage import UNREADABLE, Damage, Damaged
from labelloop.objects.formats import UNREADABLE as UNREADABLE_BYTES
from labelloop.objects.formats import Kind, read, reading, write
from labelloop.objects.shards import READERS, Shards
from labelloop.objects.storage import ObjectStore
from labelloop.records.images import ImageFacts
from labelloop.records.json import canonical, digest

OPEN_FILES = 256  # maps kept open: each costs a file descriptor
RELISTS = 3

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RowPlace:
    """Where an image's row is."""

    shard: str
    row: int
    etag: str  # the bytes that were read


class FeatureIndex:
    """Which images have features under one backbone; reads no features."""

    def __init__(self, store: ObjectStore, backbone: str, damage: Damage | None = None) -> None:
        self.backbone = backbone
        self.damage = damage or Damage()
        self.prefix = f"features/{backbone}/"
        self._shards = Shards(store, f"{self.prefix}index/", self.damage)
        self._sums: dict[str, str] = {}  # shard -> sha256 of its rows
        self.places: dict[str, RowPlace] = {}  # by uri; the newest shard wins
        self._ordered: list[str] = []
        self._arrived: list[str] = []  # not in `_ordered` yet
        self.sizes: dict[str, int] = {}  # shard -> rows
        self.replaced: dict[str, Replaced] = {}  # large shard -> those that it was made of

    def update(self, *, whole: bool = False) -> None:
        """Read the shards that were added since the last call. ``whole``: also look whether any has vanished."""
        if whole:
            self._shards.look_at_all()
        for _ in self.updates():
            pass

    def updates(self) -> Iterator[set[str]]:
        """The same; images whose place has changed, shard by shard: those are not listed again after an error."""
        for key, data in self._shards.arrivals():
            try:
                shard = index_from(data, key)
            except UNREADABLE as error:  # its images have no features: these are computed again
                self._shards.refuse(key, error)
                continue
            yield self._take(self._name(key), shard)
        vanished = {self._name(key) for key in self._shards.vanished}
        if vanished:
            self._shards.vanished = set()
            yield self._drop(vanished)

    def __contains__(self, uri: object) -> bool:
        return uri in self.places

    def __len__(self) -> int:
        return len(self.places)

    def ordered(self) -> list[str]:
        """Every image, by name; sorted again only when images have come, which is quick."""
        if self._arrived:
            self._ordered += self._arrived
            self._ordered.sort()
            self._arrived = []
        return self._ordered

    def rows_key(self, shard: str) -> str:
        """Where a shard's rows lie."""
        return f"{self.prefix}rows/{shard}.safetensors"

    def sha256(self, shard: str) -> str:
        """The recorded hash of a shard's rows."""
        return self._sums[shard]

    def note(self, shard: str, data: Mapping[str, Any]) -> None:
        """A shard of our own whose name lies too far back to be listed soon."""
        self._take(shard, data)
        self._shards.taken.add(f"{self.prefix}index/{shard}.json")

    def lose(self, shard: str) -> set[str]:
        """Its rows cannot be had: the images whose features were there, which have none from now on."""
        return self._drop({shard})

    def _name(self, key: str) -> str:
        return key.rsplit("/", 1)[1].removesuffix(".json")

    def _take(self, shard: str, data: Mapping[str, Any]) -> set[str]:
        touched = set()
        for row, (uri, etag) in enumerate(zip(data["uris"], data["etags"], strict=True)):
            before = self.places.get(uri)
            if before is None:
                self._arrived.append(uri)
            if before is None or before.shard < shard:
                self.places[uri] = RowPlace(shard, row, etag)
                touched.add(uri)
        self._sums[shard], self.sizes[shard] = str(data["sha256"]), len(data["uris"])
        if data.get("replaces"):
            self.replaced[shard] = Replaced(tuple(data["replaces"]), str(data["made_at"]))
        return touched

    def _drop(self, shards: set[str]) -> set[str]:
        """Places in shards that are no more; most were taken over by the larger one that replaced them."""
        lost = {uri for uri, place in self.places.items() if place.shard in shards}
        for uri in lost:
            del self.places[uri]
        if lost:
            self._ordered, self._arrived = [], list(self.places)
        for shard in shards:
            self._sums.pop(shard, None)
            self.sizes.pop(shard, None)
        return lost


def lacks(uri: str, facts: ImageFacts | None, featurised: Container[str]) -> bool:
    """Whether an image lacks what a head learns from, and may still get it."""
    return facts is None or (not facts.problem and (uri not in featurised or facts.undecided))


def index_from(raw: bytes, key: str) -> dict[str, Any]:
    """Whole or not at all; CorruptObjectError, FormatError."""
    data = read(Kind.FEATURES, raw, key)
    with reading(key):
        uris, etags, replaces = data["uris"], data["etags"], data.get("replaces") or []
        if not all(type(text) is str for text in [*uris, *etags, *replaces, data["sha256"]]):
            raise TypeError("a name is no text")
        if len(uris) != len(etags):
            raise ValueError("its lists do not fit each other")
        if replaces:
            parse(data["made_at"])
    return data


@dataclass(frozen=True, slots=True)
class _Rows:
    uris: Sequence[str]
    etags: Sequence[str]
    features: Floats


class FeatureStore:
    """Features of one project under one backbone: shards are written once, the newest row of an image counts."""

    def __init__(
        self, store: ObjectStore, backbone: str, cache: Path, damage: Damage | None = None,
        *, on_lost: Callable[[Collection[str]], None] = lambda _uris: None,
    ) -> None:  # fmt: skip
        self._on_lost = on_lost
        self._store = store
        self._cache = cache / "features" / backbone
        self._rows: dict[str, Floats] = {}  # shard -> memory map
        self._lacking: dict[str, Collection[str]] = {}  # key of lost rows -> whose they were
        self.index = FeatureIndex(store, backbone, damage)

    def add(self, shard: str, uris: Sequence[str], etags: Sequence[str], features: Floats) -> None:
        """Write one shard; ``features`` is (len(uris), dimension) float32. Rows count once the index names them."""
        self._write(shard, _Rows(uris, etags, features), {})

    def _write(self, shard: str, rows: _Rows, more: Mapping[str, Any]) -> dict[str, Any]:
        data = bytes(save({"features": np.ascontiguousarray(rows.features, dtype=np.float32)}))
        self._store.put(self._rows_key(shard), data)
        index = {"uris": list(rows.uris), "etags": list(rows.etags), "sha256": digest(data), **more}
        self._store.put(f"{self.index.prefix}index/{shard}.json", write(Kind.FEATURES, index))
        return index

    def merge(self, shards: Sequence[str]) -> str:
        """One large shard instead of these small ones, which stay until `drop`; its name."""
        merging = set(shards)
        kept = sorted((p.shard, p.row, uri) for uri, p in self.index.places.items() if p.shard in merging)
        uris = [uri for _, _, uri in kept]
        etags = [self.index.places[uri].etag for uri in uris]
        name = merged_name(list(shards), digest(canonical([list(shards), uris])))
        more = {"replaces": list(shards), "made_at": now()}
        self.index.note(name, self._write(name, _Rows(uris, etags, self.rows(uris)), more))
        return name

    def drop(self, shards: Sequence[str]) -> None:
        """Remove shards that a larger one has replaced: the index first, so that no index names rows that are gone."""
        for shard in shards:
            self._store.delete(f"{self.index.prefix}index/{shard}.json")
            self._store.delete(self._rows_key(shard))
            self._rows.pop(shard, None)
            self._path(shard).unlink(missing_ok=True)

    def update(self) -> None:
        """See the shards that were added since the last call; rows are fetched when they are asked for."""
        self.index.update()
        for key in [key for key, uris in self._lacking.items() if all(uri in self.index for uri in uris)]:
            self.index.damage.resolved(key)  # computed again: nobody reads it any more
            del self._lacking[key]

    def lost(self) -> list[Damaged]:
        """Shards of rows that could not be read, as long as an image of theirs has no others."""
        return [damaged for damaged in self.index.damage.all() if damaged.key in self._lacking]

    def __contains__(self, uri: object) -> bool:
        return uri in self.index

    def __len__(self) -> int:
        return len(self.index)

    def rows(self, uris: Sequence[str]) -> Floats:
        """(len(uris), dimension) float32, in that order; KeyError for an image without features.

        LostRowsError names the images of a shard that cannot be had; from then on they are without features.
        """
        for _ in range(RELISTS):
            try:
                return self._gather(uris)
            except NotFoundError:  # its shard was taken over by a larger one a moment ago
                self.index.update(whole=True)
        try:
            return self._gather(uris)
        except NotFoundError as error:
            shard = next(s for s in {self.index.places[u].shard for u in uris} if not self._is_there(s))
            raise self._lost(shard, str(error)) from error

    def _is_there(self, shard: str) -> bool:
        return self._path(shard).exists() or self._store.exists(self._rows_key(shard))

    def _lost(self, shard: str, reason: str) -> LostRowsError:
        self._rows.pop(shard, None)
        self._path(shard).unlink(missing_ok=True)
        error = LostRowsError(self._rows_key(shard), reason, self.index.lose(shard))
        self.index.damage.note(error.key, error)
        self._lacking[error.key] = error.uris
        self._on_lost(error.uris)
        return error

    def _rows_key(self, shard: str) -> str:
        return self.index.rows_key(shard)

    def _gather(self, uris: Sequence[str]) -> Floats:
        by_shard: dict[str, list[tuple[int, int]]] = {}
        for i, uri in enumerate(uris):
            place = self.index.places[uri]
            by_shard.setdefault(place.shard, []).append((i, place.row))
        self.fetch(by_shard)
        out = np.empty((len(uris), 0), dtype=np.float32)
        for shard, pairs in by_shard.items():  # one gather per shard keeps reads sequential
            rows = self._map(shard)
            if out.shape[1] == 0:
                out = np.empty((len(uris), rows.shape[1]), dtype=np.float32)
            places, row_numbers = zip(*pairs, strict=True)
            out[list(places)] = rows[list(row_numbers)]
        return out

    def fetch(self, shards: Iterable[str]) -> None:
        """Bring what is missing to this machine, several at a time; NotFoundError, LostRowsError, StorageError."""
        missing = [shard for shard in shards if shard not in self._rows and not self._path(shard).exists()]
        if len(missing) > 1:
            with ThreadPoolExecutor(READERS) as pool:
                list(pool.map(self._local, missing))

    def _map(self, shard: str) -> Floats:
        rows = self._rows.pop(shard, None)
        if rows is None:
            path = self._local(shard)
            try:
                rows = _open(path)
                if len(rows) != self.index.sizes[shard]:
                    raise ValueError(f"{len(rows)} rows, {self.index.sizes[shard]} were recorded")
            except UNREADABLE_BYTES as error:
                raise self._lost(shard, str(error)) from error
        self._rows[shard] = rows  # the one used last comes last
        if len(self._rows) > OPEN_FILES:
            del self._rows[next(iter(self._rows))]
        return rows

    def _path(self, shard: str) -> Path:
        return self._cache / f"{shard}.safetensors"

    def _local(self, shard: str) -> Path:
        """The shard's file on this machine; written aside and renamed, so that no reader sees half of it."""
        path = self._path(shard)
        if not path.exists():
            data = self._store.get(self._rows_key(shard))
            if digest(data) != self.index.sha256(shard):
                raise self._lost(shard, "it does not have the hash that was recorded")
            self._cache.mkdir(parents=True, exist_ok=True)
            aside = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
            aside.write_bytes(data)
            aside.rename(path)
        return path


def _open(path: Path) -> Floats:
    """Map one safetensors file: 8 bytes of header length, the JSON header, then the raw rows."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("the header is cut off")
        tensor = json.loads(file.read(length))["features"]
    if tensor["dtype"] != "F32":
        raise ValueError(f"float32 expected, not {tensor['dtype']}")
    offset = 8 + length + int(tensor["data_offsets"][0])
    return np.memmap(path, dtype=np.float32, mode="r", offset=offset, shape=tuple(tensor["shape"]))
