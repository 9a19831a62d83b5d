"""The training loop: a backbone and a layer on top, epochs over the train part, the best of them kept.

LP-FT (Kumar et al. 2022): the layer begins as a head that was fitted on the kept features, so that the first steps do
not tear apart what the backbone knows.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import structlog
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from labelloop.config.training import Retrain
from labelloop.model.head import Head
from labelloop.model.net import Backbone
from retrain_worker.training.augment import Augmenter
from retrain_worker.training.batches import Batch, Shard, Waits, batches, epoch_order, steps_per_epoch
from retrain_worker.training.checkpoint import (
    Checkpoint,
    Keeper,
    NoKeeper,
    copied,
    of,
    optimiser_tensors,
    restore_optimiser,
    under,
)
from retrain_worker.training.optimiser import make_optimiser, make_schedule, rates
from retrain_worker.training.parts import Part, Parts, weighted

EVALUATE_BATCH = 64

log = structlog.get_logger()
Report = Callable[[str, int, int], None]  # what, steps done, steps in all; may raise to end the run


@dataclass(frozen=True, slots=True)
class Epoch:
    """One round over the train part, and what the validation part says after it (None: there is none)."""

    number: int
    loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    rate: float  # highest learning rate at its end
    seconds: float
    waited_s: float  # of which for data


@dataclass(frozen=True, slots=True)
class FineTuneHistory:
    """How a run went."""

    epochs: tuple[Epoch, ...]
    best: int  # number of the epoch whose weights are kept
    images_per_s: float
    waited_share: float  # of the time of all epochs
    precision: str
    resumed_at: int = 0  # epochs that an earlier attempt had done

    def to_json(self) -> dict[str, Any]:
        """For the run record."""
        return asdict(self)


class LogitsNet(nn.Module):
    """Normalised images to logits."""

    def __init__(self, backbone: nn.Module, dimension: int, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.layer = nn.Linear(dimension, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, H, W) to (n, classes)."""
        logits: Tensor = self.layer(self.backbone(images).float())
        return logits


@dataclass
class FineTune:
    """One fine-tune. `fit` is the way in."""

    backbone: Backbone
    parts: Parts
    policy: Retrain
    seed: int
    keeper: Keeper = field(default_factory=NoKeeper)
    report: Report = lambda *_: None
    shard: Shard = field(default_factory=Shard)
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module  # DistributedDataParallel, where there are several
    after: Callable[[Epoch], bool] = lambda _: False  # after each epoch: whether to end here
    on_epoch: Callable[[Epoch], None] = lambda _: None
    agree: Callable[[Any], Any] = lambda value: value  # of several processes: the value of the first
    mean: Callable[[Tensor], Tensor] = lambda value: value  # of several processes: over all of them

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        self.learned = _balanced(self.parts, self.policy)
        self.model = LogitsNet(self.backbone.module, self.backbone.record.dimension, len(self.parts.classes))
        self.model.to(self.backbone.device)
        self.optimiser = make_optimiser(self.backbone.module, self.model.layer, self.policy)
        self.per_epoch = steps_per_epoch(len(self.parts.train), self.policy.batch_size, self.shard.world)
        self.schedule = make_schedule(self.optimiser, self.policy, self.per_epoch * self.policy.epochs)
        self.average = _averaged(self.model, self.policy.ema)
        self.precision = precision_of(self.policy.precision, self.backbone.device)
        self.augment = Augmenter(self.policy, len(self.parts.classes))
        self.epochs: list[Epoch] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = self.resumed_at = 0

    def begin_with(self, head: Head) -> None:
        """The layer gives what this head gives; classes by name."""
        rows = [head.labels.index(name) for name in self.parts.classes]
        with torch.no_grad():
            self.model.layer.weight.copy_(torch.from_numpy(head.weight[rows] / head.temperature))
            self.model.layer.bias.copy_(torch.from_numpy(head.bias[rows] / head.temperature))

    def run(self) -> FineTuneHistory:
        """To the end, or until nothing is gained any more; the backbone then holds the best epoch's weights."""
        self._resume()
        if self.policy.compile and _can_compile():
            self.model.compile()
        step = self.wrap(self.model)
        ended = any(self.after(epoch) for epoch in self.epochs)
        while not ended and len(self.epochs) < self.policy.epochs and not self._exhausted():
            self._epoch(step)
            if self.shard.rank == 0:
                self.keeper.save(self._checkpoint())
            self.on_epoch(self.epochs[-1])
            ended = self.after(self.epochs[-1])
        self.model.load_state_dict({k: v.to(self.backbone.device) for k, v in self.best.items()})
        self.model.eval()
        return self._history()

    def _epoch(self, step: nn.Module) -> None:
        number = len(self.epochs) + 1
        began, waits = time.monotonic(), Waits()
        loss = self._learn(step, number, waits)
        took = time.monotonic() - began
        judged = self.agree(self._judge())
        self.schedule.judged(judged[1] if judged else None)
        on_validation, accuracy = judged or (None, None)
        epoch = Epoch(number, loss, on_validation, accuracy, rates(self.optimiser)[0], took, waits.seconds)
        self.epochs.append(epoch)
        if not self.best or judged is None or self._is_best(epoch):
            self.best, self.best_epoch = copied(self._kept().state_dict()), number
        log.info("epoch", action="epoch", **{k: _rounded(v) for k, v in asdict(epoch).items()})

    def _learn(self, step: nn.Module, number: int, waits: Waits) -> float:
        part, policy = self.learned, self.policy
        torch.manual_seed(_seed(self.seed, number))  # dropout: by epoch, not by what was drawn before
        _train_mode(self.model, freeze_norm=freezes_norm(policy, self.backbone))
        order = epoch_order(part, number, seed=self.seed, balance=policy.balance, classes=len(self.parts.classes))
        total, weight = torch.zeros((2,), device=self.backbone.device)
        for i, batch in enumerate(batches(part, order, policy.batch_size, self.shard, waits)):
            loss, say = self._step(step, batch, _seed(self.seed, number, i, self.shard.rank))
            self.schedule.step()
            if self.average:
                self.average.update_parameters(self.model)
            total += loss * say
            weight += say
            done = (number - 1) * self.per_epoch + i + 1
            self.report(f"fine-tune on {len(part)} labels", done, policy.epochs * self.per_epoch)
        return float(self.mean(total) / weight)

    def learn_from(self, batch: Batch, number: int) -> float:
        """One step outside of an epoch; the loss before it."""
        _train_mode(self.model, freeze_norm=freezes_norm(self.policy, self.backbone))
        return float(self._step(self.model, batch, _seed(self.seed, 0, number))[0])

    def _step(self, step: nn.Module, batch: Batch, seed: int) -> tuple[Tensor, Tensor]:
        """The loss before it, and the weight of the batch: of all processes together."""
        images, shares = self._prepared(batch, seed)
        loss, say = self._loss(step, images, shares, batch.weights)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimiser.step()
        return loss.detach(), say

    def _prepared(self, batch: Batch, seed: int) -> tuple[Tensor, Tensor]:
        """Augmented, normalised images, and (b, classes) shares of the classes."""
        device = self.backbone.device
        pixels, targets = batch.images.to(device, non_blocking=True), batch.targets.to(device, non_blocking=True)
        changed, shares = self.augment(pixels, targets, seed)
        return self.backbone.normalise(changed), shares

    def _loss(self, step: nn.Module, images: Tensor, shares: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Divided by the mean weight of all processes: by its own, each would give its images another say."""
        with _autocast(self.precision, self.backbone.device):
            logits = step(images)
        losses = functional.cross_entropy(
            logits.float(), shares, label_smoothing=self.policy.label_smoothing, reduction="none"
        )
        say = weights.to(losses.device)
        whole = self.mean(say.sum())
        return (losses * say).sum() / whole, whole

    def _judge(self) -> tuple[float, float] | None:
        """(log loss, accuracy) on the validation part by the weights that would be kept; no randomness."""
        if not len(self.parts.validation):
            return None
        return evaluate(self._kept(), self.backbone, self.parts.validation, self.precision)

    def _kept(self) -> nn.Module:
        return self.average.module if self.average else self.model

    def _is_best(self, epoch: Epoch) -> bool:
        assert epoch.validation_accuracy is not None and epoch.validation_loss is not None
        best = self.epochs[self.best_epoch - 1]
        assert best.validation_accuracy is not None and best.validation_loss is not None
        return (epoch.validation_accuracy, -epoch.validation_loss) > (best.validation_accuracy, -best.validation_loss)

    def _exhausted(self) -> bool:
        return self.policy.patience is not None and len(self.epochs) - self.best_epoch >= self.policy.patience

    # --- checkpoints

    def _checkpoint(self) -> Checkpoint:
        moments, facts = optimiser_tensors(self.optimiser)
        averaged = copied(self.average.state_dict()) if self.average else {}
        tensors = {
            **under("model", copied(self.model.state_dict())), **under("best", self.best),
            **under("optimiser", moments), **under("average", averaged),
        }  # fmt: skip
        notes = {
            "epochs": [asdict(e) for e in self.epochs], "best": self.best_epoch, "optimiser": facts,
            "schedule": self.schedule.state_dict(),
        }  # fmt: skip
        return Checkpoint(len(self.epochs), tensors, notes)

    def _resume(self) -> None:
        checkpoint = self.keeper.load()
        if checkpoint is None:
            return
        self.model.load_state_dict(of("model", checkpoint.tensors))
        self.best, self.best_epoch = of("best", checkpoint.tensors), int(checkpoint.facts["best"])
        restore_optimiser(self.optimiser, of("optimiser", checkpoint.tensors), checkpoint.facts["optimiser"])
        self.schedule.load_state_dict(checkpoint.facts["schedule"])
        if self.average:
            self.average.load_state_dict(of("average", checkpoint.tensors))
        self.epochs = [Epoch(**e) for e in checkpoint.facts["epochs"]]
        self.resumed_at = checkpoint.epoch
        log.info("resuming from a checkpoint", action="checkpoint", epoch=checkpoint.epoch)

    def _history(self) -> FineTuneHistory:
        seconds = sum(e.seconds for e in self.epochs)
        images = len(self.epochs) * len(self.parts.train)
        waited = sum(e.waited_s for e in self.epochs)
        return FineTuneHistory(
            tuple(self.epochs), self.best_epoch, images / seconds, waited / seconds, self.precision, self.resumed_at
        )


def fit(run: FineTune, head: Head | None = None) -> FineTuneHistory:
    """Fine-tune ``run.backbone`` in place. ``head``: what the layer on top begins with, classes by name."""
    if head is not None and run.policy.warm_head and set(run.parts.classes) <= set(head.labels):
        run.begin_with(head)
    return run.run()


def evaluate(model: nn.Module, backbone: Backbone, part: Part, precision: str) -> tuple[float, float]:
    """(log loss, accuracy) over a part, in order, without augmentation."""
    model.eval()
    losses, right = 0.0, 0
    with torch.inference_mode(), _autocast(precision, backbone.device):
        for start in range(0, len(part), EVALUATE_BATCH):
            rows = slice(start, start + EVALUATE_BATCH)
            images = torch.from_numpy(np.ascontiguousarray(part.images[rows]))
            targets = torch.from_numpy(part.targets[rows]).to(backbone.device)
            logits = model(backbone.normalise(images)).float()
            losses += float(functional.cross_entropy(logits, targets, reduction="sum"))
            right += int((logits.argmax(dim=1) == targets).sum())
    return losses / len(part), right / len(part)


def precision_of(setting: str, device: torch.device) -> str:
    """bf16 where the processor has it, else fp32: by what there is and not by a stopwatch, so that runs repeat."""
    if setting != "auto":
        return setting
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"


def freezes_norm(policy: Retrain, backbone: Backbone) -> bool:
    """A few hundred labels spoil the statistics of a network that came with weights; another one has none yet."""
    if policy.freeze_norm is not None:
        return policy.freeze_norm
    return not backbone.record.provenance.startswith("random start")


def _balanced(parts: Parts, policy: Retrain) -> Part:
    """What is learned from; ``parts`` stay as they are, for several processes each weight what they are given."""
    return weighted(parts.train, len(parts.classes)) if policy.balance == "weights" else parts.train


def _can_compile() -> bool:
    """Torch writes C++ and has it compiled: without a compiler the run goes on as it is."""
    found = shutil.which("g++") or shutil.which("clang++")
    if not found:
        log.warning("retrain.compile needs g++ or clang++, and there is neither: not compiled", action="compile")
    return found is not None


def _averaged(model: nn.Module, decay: float) -> AveragedModel | None:
    if not decay:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]


def _autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def _train_mode(module: nn.Module, *, freeze_norm: bool) -> None:
    module.train()
    for part in module.modules() if freeze_norm else ():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()


def _seed(*parts: int) -> int:
    """One number from several, far apart for neighbours."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
