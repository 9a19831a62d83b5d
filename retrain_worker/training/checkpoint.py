"""Everything an epoch ends with, as safetensors and JSON: a run that was killed goes on from there, anywhere.

Nothing is pickled. The key names the run's inputs, so that only the same run finds it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor
from torch.optim import Optimizer

from labelloop.errors import NotFoundError
from labelloop.objects.formats import UNREADABLE
from labelloop.objects.storage import ObjectStore
from labelloop.records.json import canonical, digest

PREFIX = "checkpoints/"

log = structlog.get_logger()
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state after ``epoch`` epochs. ``tensors`` by dotted names; ``facts`` plain JSON."""

    epoch: int
    tensors: Tensors
    facts: Mapping[str, Any]


class Keeper(Protocol):
    """Where checkpoints go."""

    def load(self) -> Checkpoint | None:
        """The newest that is intact."""

    def save(self, checkpoint: Checkpoint) -> None:
        """In place of the one before."""

    def clear(self) -> None:
        """The run has ended."""


class NoKeeper:
    """For runs of seconds."""

    def load(self) -> Checkpoint | None:
        return None

    def save(self, checkpoint: Checkpoint) -> None:
        pass

    def clear(self) -> None:
        pass


class StoredKeeper:
    """In object storage, under the hash of the run's inputs. Tensors first, then the note that names them."""

    def __init__(self, store: ObjectStore, inputs: Mapping[str, Any]) -> None:
        self._store, self._place = store, f"{PREFIX}{digest(canonical(inputs))[:24]}/"

    def load(self) -> Checkpoint | None:
        try:
            note = json.loads(self._store.get(f"{self._place}note.json"))
            data = self._store.get(self._place + note["tensors"])
            _check(data, note["sha256"])
            return Checkpoint(int(note["epoch"]), read_tensors(data), note["facts"])
        except NotFoundError:
            return None
        except (*UNREADABLE, SafetensorError) as error:
            log.warning("checkpoint damaged, starting over", action="checkpoint", reason=str(error))
            return None

    def save(self, checkpoint: Checkpoint) -> None:
        data = bytes(write_tensors({k: v.detach().cpu().contiguous().clone() for k, v in checkpoint.tensors.items()}))
        name = f"epoch-{checkpoint.epoch}.safetensors"
        self._store.put(self._place + name, data)
        note = {"epoch": checkpoint.epoch, "tensors": name, "sha256": digest(data), "facts": checkpoint.facts}
        self._store.put(f"{self._place}note.json", canonical(note))
        self._remove(keep={name, "note.json"})

    def clear(self) -> None:
        self._remove(keep=set())

    def _remove(self, keep: set[str]) -> None:
        for info in list(self._store.list(self._place)):
            if info.key.removeprefix(self._place) not in keep:
                self._store.delete(info.key)


def _check(data: bytes, recorded: str) -> None:
    if digest(data) != recorded:
        raise ValueError("the tensors do not have the recorded hash")


def optimiser_tensors(optimiser: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as named tensors, and the rest (rates per group) as JSON."""
    state = optimiser.state_dict()
    tensors, numbers = {}, {}
    for place, slots in state["state"].items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"{place}.{name}"] = value
            elif value is not None:
                numbers[f"{place}.{name}"] = value
    groups = [{k: v for k, v in g.items() if isinstance(v, int | float | bool)} for g in state["param_groups"]]
    return tensors, {"groups": groups, "numbers": numbers}


def restore_optimiser(optimiser: Optimizer, tensors: Tensors, facts: Mapping[str, Any]) -> None:
    """The inverse; the parameters must be those of then, in their order."""
    state = optimiser.state_dict()
    slots: dict[int, dict[str, Any]] = {}
    for name, value in [*tensors.items(), *facts["numbers"].items()]:
        place, _, slot = name.partition(".")
        slots.setdefault(int(place), {})[slot] = value
    groups = [{**g, **kept} for g, kept in zip(state["param_groups"], facts["groups"], strict=True)]
    optimiser.load_state_dict({"state": slots, "param_groups": groups})


def under(prefix: str, tensors: Tensors) -> dict[str, Tensor]:
    """The same tensors with a common prefix."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def of(prefix: str, tensors: Tensors) -> dict[str, Tensor]:
    """Those under a prefix, without it."""
    return {k.removeprefix(f"{prefix}/"): v for k, v in tensors.items() if k.startswith(f"{prefix}/")}


def copied(state: Tensors) -> dict[str, Tensor]:
    """A state that later steps do not change."""
    return {name: value.detach().cpu().clone() for name, value in state.items()}
