"""Features in, the calibrated vote of several members out: the head for those who can wait for a slower fit.

The file is safetensors: one block of ONNX bytes per member, and JSON that says which members vote and how. No pickle,
no archive, no path: nothing in it can run code or read another file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from labelloop.errors import CorruptArtefactError
from labelloop.model.onnx_member import MemberRun, open_member
from labelloop.records.arrays import Floats
from labelloop.records.json import canonical, digest

KIND = "ensemble"  # the one key of the file's metadata
LARGEST = 100_000_000  # bytes; those we make stay below 20 MB for 3000 labels of 20 classes
WIDEST = 1_000_000  # features
COLDEST = 0.01  # temperature; a fit stays far from it
ROWS = 1024  # looked at together: a kernel takes 8 bytes for each of them and each support vector

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Member:
    """One voter; its probabilities count as much as those of every other."""

    name: str
    model: bytes = field(repr=False)  # ONNX
    run: MemberRun = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class EnsembleHead:
    """Soft voting with equal weights; ``temperature`` calibrates what the members say together."""

    labels: tuple[str, ...]  # class order of every member's columns
    dimension: int
    members: tuple[Member, ...]
    temperature: float = 1.0

    def probabilities(self, features: Floats) -> Floats:
        """(n, dimension) float32 to (n, classes) float32, rows sum to 1."""
        rows = np.ascontiguousarray(features, dtype=np.float32)
        parts = [self._vote(rows[i : i + ROWS]) for i in range(0, len(rows), ROWS)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.labels)), dtype=np.float32)

    def unseen(self, features: Floats) -> Floats:
        """Zeros: it is fitted only where hardly anything speaks for a class without a label."""
        return np.zeros(len(features), dtype=np.float32)

    def dump(self) -> bytes:
        """The members' ONNX bytes and what is said of them; the same bytes for the same head."""
        about = {
            "labels": self.labels, "dimension": self.dimension, "temperature": self.temperature,
            "members": [{"name": m.name, "sha256": digest(m.model)} for m in self.members],
        }  # fmt: skip
        models = {m.name: np.frombuffer(m.model, dtype=np.uint8) for m in self.members}
        return bytes(save(models, metadata={KIND: canonical(about).decode()}))

    def _vote(self, rows: Floats) -> Floats:
        votes = np.mean([member.run(rows) for member in self.members], axis=0, dtype=np.float64)
        return tempered(np.asarray(votes), self.temperature).astype(np.float32)


def tempered(probabilities: Doubles, temperature: float) -> Doubles:
    """What dividing the logits would make of them: sharper below 1, softer above. What is 0 stays 0."""
    raised = probabilities ** (1 / temperature)
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), dtype=np.float64)


def is_ensemble(data: bytes) -> bool:
    """Whether the bytes say that they are an ensemble; nothing else about them is checked."""
    try:
        return KIND in _metadata(data)
    except (ValueError, RecursionError):
        return False


def load_ensemble(data: bytes, labels: tuple[str, ...], *, threads: int = 1) -> EnsembleHead:
    """The inverse of `EnsembleHead.dump`, each member looked over; CorruptArtefactError where anything does not fit."""
    if len(data) > LARGEST:
        raise CorruptArtefactError(f"the ensemble has {len(data)} bytes, {LARGEST} at most are read")
    try:
        models = {name: bytes(tensor.tobytes()) for name, tensor in load(data).items()}
        about = json.loads(_metadata(data)[KIND])
        dimension, temperature = int(about["dimension"]), float(about["temperature"])
        listed = [(str(m["name"]), str(m["sha256"])) for m in about["members"]]
        named = tuple(about["labels"])
    except (SafetensorError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CorruptArtefactError(f"the ensemble cannot be read: {error}") from error
    if named != labels:
        raise CorruptArtefactError(f"the ensemble names the classes {named}, the version {labels}")
    _check_members(models, listed)
    if not (1 <= dimension <= WIDEST and COLDEST <= temperature <= 1 / COLDEST):  # NaN is refused, too
        raise CorruptArtefactError("the ensemble's dimension or temperature cannot be")
    runs = [open_member(models[n], dimension=dimension, classes=len(labels), threads=threads) for n, _ in listed]
    members = tuple(Member(name, models[name], run) for (name, _), run in zip(listed, runs, strict=True))
    return EnsembleHead(labels, dimension, members, temperature)


def _check_members(models: Mapping[str, bytes], listed: Sequence[tuple[str, str]]) -> None:
    if not listed or sorted(models) != sorted(name for name, _ in listed):
        raise CorruptArtefactError("the ensemble's members are not those it names")
    for name, sha in listed:
        if digest(models[name]) != sha:
            raise CorruptArtefactError(f"the ensemble's member {name} is damaged")


def _metadata(data: bytes) -> dict[str, Any]:
    """The free part of a safetensors header; ValueError where there is none."""
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= len(data) - 8:
        raise ValueError("no safetensors header")
    header = json.loads(data[8 : 8 + length])
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return metadata if isinstance(metadata, dict) else {}
