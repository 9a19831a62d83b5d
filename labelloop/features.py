"""The kept features: one row per (image, backbone), in immutable shards with a local memory-mapped copy."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from labelloop.errors import CorruptArtefactError
from labelloop.storage import ObjectStore

Floats = NDArray[np.float32]


class FeatureStore:
    """Features of one project under one backbone. Shards written once; the newest row of an image counts."""

    def __init__(self, store: ObjectStore, backbone: str, cache: Path) -> None:
        self._store = store
        self._prefix = f"features/{backbone}/"
        self._cache = cache / "features" / backbone
        self._shards: dict[str, Floats] = {}  # memory maps, by key
        self._where: dict[str, tuple[str, int, str]] = {}  # uri -> shard, row, etag
        self.dimension = 0

    def add(self, shard: str, uris: Sequence[str], etags: Sequence[str], features: Floats) -> None:
        """Write one shard; ``features`` is (len(uris), dimension) float32."""
        meta = {"uris": json.dumps(list(uris)), "etags": json.dumps(list(etags))}
        rows = np.ascontiguousarray(features, dtype=np.float32)
        self._store.put(f"{self._prefix}{shard}.safetensors", bytes(save({"features": rows}, metadata=meta)))

    def update(self) -> None:
        """Fetch and map the shards that were added since the last call."""
        for info in self._store.list(self._prefix):
            if info.key not in self._shards:
                self._map(info.key)

    def __contains__(self, uri: str) -> bool:
        return uri in self._where

    def __len__(self) -> int:
        return len(self._where)

    @property
    def uris(self) -> list[str]:
        """Every image that has features, in the order in which they were added."""
        return list(self._where)

    def etag(self, uri: str) -> str | None:
        """The ETag under which the image was read."""
        place = self._where.get(uri)
        return place[2] if place else None

    def rows(self, uris: Sequence[str]) -> Floats:
        """(len(uris), dimension) float32, in that order; KeyError for an image without features."""
        out = np.empty((len(uris), self.dimension), dtype=np.float32)
        by_shard: dict[str, list[tuple[int, int]]] = {}
        for i, uri in enumerate(uris):
            shard, row, _ = self._where[uri]
            by_shard.setdefault(shard, []).append((i, row))
        for shard, pairs in by_shard.items():  # one gather per shard keeps reads sequential
            places, rows = zip(*pairs, strict=True)
            out[list(places)] = self._shards[shard][list(rows)]
        return out

    def _map(self, key: str) -> None:
        path = self._local(key)
        try:
            uris, etags, rows = _open(path)
        except (KeyError, ValueError, OSError) as error:
            path.unlink(missing_ok=True)
            raise CorruptArtefactError(f"feature shard {key} cannot be read: {error}") from error
        self._shards[key] = rows
        self.dimension = int(rows.shape[1])
        for row, (uri, etag) in enumerate(zip(uris, etags, strict=True)):
            self._where[uri] = (key, row, etag)

    def _local(self, key: str) -> Path:
        """The shard's file on this machine; written aside and renamed, so that no reader sees half of it."""
        path = self._cache / Path(key).name
        if not path.exists():
            self._cache.mkdir(parents=True, exist_ok=True)
            aside = path.with_suffix(f".{os.getpid()}")
            aside.write_bytes(self._store.get(key))
            aside.rename(path)
        return path


def _open(path: Path) -> tuple[list[str], list[str], Floats]:
    """Map one safetensors file: 8 bytes of header length, the JSON header, then the raw rows."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("the header is cut off")
        header = json.loads(file.read(length))
    meta, tensor = header["__metadata__"], header["features"]
    if tensor["dtype"] != "F32":
        raise ValueError(f"float32 expected, not {tensor['dtype']}")
    offset = 8 + length + int(tensor["data_offsets"][0])
    rows: Floats = np.memmap(path, dtype=np.float32, mode="r", offset=offset, shape=tuple(tensor["shape"]))
    return json.loads(meta["uris"]), json.loads(meta["etags"]), rows
