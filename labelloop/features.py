"""The kept features: one row per (image, backbone), in immutable shards with a local memory-mapped copy."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from labelloop.errors import CorruptArtefactError
from labelloop.records import canonical, digest
from labelloop.storage import ObjectStore

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image's row is."""

    shard: str
    row: int
    etag: str  # the bytes that were read


class FeatureIndex:
    """Which images have features under one backbone; reads no features."""

    def __init__(self, store: ObjectStore, backbone: str) -> None:
        self._store = store
        self.backbone = backbone
        self.prefix = f"features/{backbone}/"
        self._sums: dict[str, str] = {}  # shard -> sha256 of its rows
        self.places: dict[str, Place] = {}  # by uri; the newest shard wins

    def update(self) -> None:
        """Read the shards that were added since the last call."""
        for info in self._store.list(f"{self.prefix}index/"):
            shard = info.key.rsplit("/", 1)[1].removesuffix(".json")
            if shard not in self._sums:
                self._read(shard, json.loads(self._store.get(info.key)))

    def __contains__(self, uri: object) -> bool:
        return uri in self.places

    def __len__(self) -> int:
        return len(self.places)

    def sha256(self, shard: str) -> str:
        """The recorded hash of a shard's rows."""
        return self._sums[shard]

    def _read(self, shard: str, data: dict[str, list[str] | str]) -> None:
        for row, (uri, etag) in enumerate(zip(data["uris"], data["etags"], strict=True)):
            self.places[uri] = Place(shard, row, etag)
        self._sums[shard] = str(data["sha256"])


class FeatureStore:
    """Features of one project under one backbone: shards are written once, the newest row of an image counts."""

    def __init__(self, store: ObjectStore, backbone: str, cache: Path) -> None:
        self._store = store
        self._cache = cache / "features" / backbone
        self._rows: dict[str, Floats] = {}  # shard -> memory map
        self.index = FeatureIndex(store, backbone)

    def add(self, shard: str, uris: Sequence[str], etags: Sequence[str], features: Floats) -> None:
        """Write one shard; ``features`` is (len(uris), dimension) float32. Rows count once the index names them."""
        data = bytes(save({"features": np.ascontiguousarray(features, dtype=np.float32)}))
        self._store.put(f"{self.index.prefix}rows/{shard}.safetensors", data)
        index = {"uris": list(uris), "etags": list(etags), "sha256": digest(data)}
        self._store.put(f"{self.index.prefix}index/{shard}.json", canonical(index))

    def update(self) -> None:
        """See the shards that were added since the last call; rows are fetched when they are asked for."""
        self.index.update()

    def __contains__(self, uri: object) -> bool:
        return uri in self.index

    def __len__(self) -> int:
        return len(self.index)

    def rows(self, uris: Sequence[str]) -> Floats:
        """(len(uris), dimension) float32, in that order; KeyError for an image without features."""
        by_shard: dict[str, list[tuple[int, int]]] = {}
        for i, uri in enumerate(uris):
            place = self.index.places[uri]
            by_shard.setdefault(place.shard, []).append((i, place.row))
        maps = {shard: self._map(shard) for shard in by_shard}
        width = next((m.shape[1] for m in maps.values()), 0)
        out = np.empty((len(uris), width), dtype=np.float32)
        for shard, pairs in by_shard.items():  # one gather per shard keeps reads sequential
            places, rows = zip(*pairs, strict=True)
            out[list(places)] = maps[shard][list(rows)]
        return out

    def _map(self, shard: str) -> Floats:
        if shard not in self._rows:
            path = self._local(shard)
            try:
                self._rows[shard] = _open(path)
            except (KeyError, ValueError) as error:
                path.unlink(missing_ok=True)  # fetched anew by the next try
                raise CorruptArtefactError(f"feature shard {shard} cannot be read: {error}") from error
        return self._rows[shard]

    def _local(self, shard: str) -> Path:
        """The shard's file on this machine; written aside and renamed, so that no reader sees half of it."""
        path = self._cache / f"{shard}.safetensors"
        if not path.exists():
            data = self._store.get(f"{self.index.prefix}rows/{shard}.safetensors")
            if digest(data) != self.index.sha256(shard):
                raise CorruptArtefactError(f"feature shard {shard} does not have the hash that was recorded")
            self._cache.mkdir(parents=True, exist_ok=True)
            aside = path.with_suffix(f".{os.getpid()}")
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
