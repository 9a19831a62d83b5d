"""Optimisers, learning rates per layer, and how they move over time. See Howard and Ruder 2018 for rates per layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from labelloop.config.training import Retrain
from labelloop.model.neck import Necked

Group = dict[str, Any]
State = Mapping[str, Any]

_MAKERS: Mapping[str, Callable[[list[Group], Retrain], Optimizer]] = {
    "sgd": lambda groups, p: SGD(groups, momentum=p.momentum, nesterov=p.momentum > 0, weight_decay=p.weight_decay),
    "adam": lambda groups, p: Adam(groups, weight_decay=p.weight_decay),
    "adamw": lambda groups, p: AdamW(groups, weight_decay=p.weight_decay),
    "rmsprop": lambda groups, p: RMSprop(groups, momentum=p.momentum, weight_decay=p.weight_decay),
}


def make_optimiser(backbone: nn.Module, layer: nn.Module, policy: Retrain) -> Optimizer:
    """One group for what is new on top, one per depth of the backbone; norms and biases are not decayed."""
    top = policy.learning_rate
    neck, body = ([backbone.neck], backbone.body) if isinstance(backbone, Necked) else ([], backbone)
    groups = _groups([layer, *neck], top)
    depths = list(reversed(blocks(body)))
    for below, block in enumerate(depths):
        groups += _groups([block], top * policy.backbone_rate * policy.layer_decay**below)
    return _MAKERS[policy.optimiser]([g for g in groups if g["params"]], policy)


def blocks(backbone: nn.Module) -> list[nn.Module]:
    """The backbone's parts from the image upwards, each a depth of its own: stages are opened, layers are not."""
    parts: list[nn.Module] = []
    for part in _opened(backbone):
        if any(p.requires_grad for p in part.parameters()):
            parts.append(part)
    loose = nn.ParameterList(p for p in backbone.parameters(recurse=False) if p.requires_grad)
    return [loose, *parts] if len(loose) else parts


def _opened(module: nn.Module) -> Iterable[nn.Module]:
    for child in module.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from _opened(child)
        else:
            yield child


def _groups(modules: Iterable[nn.Module], rate: float) -> list[Group]:
    parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
    flat = [p for p in parameters if p.ndim <= 1]
    deep = [p for p in parameters if p.ndim > 1]
    return [{"params": deep, "lr": rate}, {"params": flat, "lr": rate, "weight_decay": 0.0}]


class Schedule(Protocol):
    """Moves all groups' rates."""

    def step(self) -> None:
        """After each batch."""

    def judged(self, accuracy: float | None) -> None:
        """After each epoch, with what the validation part says."""

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""

    def load_state_dict(self, state: State) -> None:
        """The inverse."""


def make_schedule(optimiser: Optimizer, policy: Retrain, steps: int) -> Schedule:
    """``steps``: batches of the whole run."""
    if policy.schedule == "plateau":
        return _Plateau(optimiser, policy)
    if policy.schedule == "constant":
        return _PerStep(None)
    if policy.schedule == "onecycle":
        peaks = [g["lr"] for g in optimiser.param_groups]
        return _PerStep(OneCycleLR(optimiser, max_lr=peaks, total_steps=max(steps, 2), cycle_momentum=False))
    return _PerStep(_cosine(optimiser, policy, steps))


def _cosine(optimiser: Optimizer, policy: Retrain, steps: int) -> LRScheduler:
    warm = math.ceil(policy.warm_up * steps)
    fall = CosineAnnealingLR(optimiser, T_max=max(1, steps - warm))
    if not warm:
        return fall
    rise = LinearLR(optimiser, start_factor=1 / (warm + 1), total_iters=warm)
    return SequentialLR(optimiser, [rise, fall], milestones=[warm])


class _PerStep:
    def __init__(self, inner: LRScheduler | None) -> None:
        self._inner = inner

    def step(self) -> None:
        if self._inner:
            self._inner.step()

    def judged(self, accuracy: float | None) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return _plain(self._inner.state_dict()) if self._inner else {}

    def load_state_dict(self, state: State) -> None:
        if self._inner:
            _restore(self._inner, state)


class _Plateau:
    def __init__(self, optimiser: Optimizer, policy: Retrain) -> None:
        self._inner = ReduceLROnPlateau(
            optimiser, mode="max", factor=policy.plateau_factor, patience=policy.plateau_patience,
            min_lr=policy.plateau_floor, threshold=0.0,
        )  # fmt: skip

    def step(self) -> None:
        pass

    def judged(self, accuracy: float | None) -> None:
        if accuracy is not None:
            self._inner.step(accuracy)

    def state_dict(self) -> dict[str, Any]:
        return _plain(self._inner.state_dict())

    def load_state_dict(self, state: State) -> None:
        _restore(self._inner, state)


def _plain(state: State) -> dict[str, Any]:
    """Only what JSON holds; the schedulers inside a sequence by their own states."""
    plain: dict[str, Any] = {}
    for name, value in state.items():
        if name == "_schedulers":
            plain[name] = [_plain(s) for s in value]
        elif isinstance(value, int | float | str | bool | type(None)):
            plain[name] = value
        elif isinstance(value, list) and all(isinstance(v, int | float) for v in value):
            plain[name] = list(value)
    return plain


def _restore(inner: LRScheduler | ReduceLROnPlateau, state: State) -> None:
    if isinstance(inner, SequentialLR):
        for part, kept in zip(inner._schedulers, state["_schedulers"], strict=True):
            _restore(part, kept)
    inner.__dict__.update({k: v for k, v in state.items() if k != "_schedulers"})


def rates(optimiser: Optimizer) -> tuple[float, float]:
    """The highest and the lowest learning rate now."""
    all_rates = [float(g["lr"]) for g in optimiser.param_groups]
    return max(all_rates), min(all_rates)
