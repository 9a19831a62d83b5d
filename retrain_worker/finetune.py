"""The training loop: a backbone and a fresh linear layer, a few epochs, plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from labelloop.config import Retrain
from labelloop.net import Backbone

Report = Callable[[int, int], None]  # steps done, steps in all


@dataclass(frozen=True, slots=True)
class TrainSet:
    """``images`` (n, 3, H, W) uint8, ``targets`` (n,) int64 in [0, classes)."""

    images: NDArray[np.uint8]
    targets: NDArray[np.int64]
    classes: int


def finetune(backbone: Backbone, data: TrainSet, policy: Retrain, *, seed: int, report: Report) -> list[float]:
    """Change the backbone's weights in place; returns the mean loss of each epoch.

    Batch-norm statistics stay frozen: a few hundred labels would spoil them. Deterministic for a seed on one
    machine.
    """
    torch.manual_seed(seed)
    module, device = backbone.module, backbone.device
    layer = nn.Linear(backbone.record.dimension, data.classes).to(device)
    optimiser = torch.optim.AdamW([
        {"params": list(module.parameters()), "lr": policy.learning_rate * policy.backbone_rate},
        {"params": list(layer.parameters()), "lr": policy.learning_rate},
    ], weight_decay=0.01)  # fmt: skip
    per_epoch = -(-len(data.targets) // policy.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=[g["lr"] for g in optimiser.param_groups], total_steps=per_epoch * policy.epochs
    )
    losses = []
    _train_mode(module)
    for epoch in range(policy.epochs):
        total = 0.0
        for step, picked in enumerate(_batches(len(data.targets), policy.batch_size, seed + epoch)):
            loss = _loss(backbone, layer, data, picked, mirror=policy.mirror)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(picked)
            report(epoch * per_epoch + step + 1, per_epoch * policy.epochs)
        losses.append(total / len(data.targets))
    module.eval()
    return losses


def _loss(
    backbone: Backbone, layer: nn.Module, data: TrainSet, picked: NDArray[np.int64], *, mirror: bool
) -> torch.Tensor:
    images = torch.from_numpy(data.images[picked]).to(backbone.device)
    targets = torch.from_numpy(data.targets[picked]).to(backbone.device)
    if mirror:
        flipped = torch.rand(len(picked), device=images.device) < 0.5
        images = torch.where(flipped[:, None, None, None], images.flip(3), images)
    return nn.functional.cross_entropy(layer(backbone.module(backbone.normalise(images))), targets)


def _train_mode(module: nn.Module) -> None:
    module.train()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()


def _batches(n: int, size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    order = np.random.default_rng(seed).permutation(n)
    for start in range(0, n, size):
        yield order[start : start + size]
