"""A range test: a few dozen steps with a rising learning rate on the train part; only the curve is kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from labelloop.clock import now
from labelloop.errors import NotEnoughLabelsError
from labelloop.queue.progress import JobProgress
from labelloop.store.lr_curves import LrCurve, keep, smoothed, steepest
from retrain_worker.context import Context, ProjectContext
from retrain_worker.retrain import source_of, start_of, train_examples
from retrain_worker.training.batches import Shard, Waits, batches, epoch_order
from retrain_worker.training.data import parts_of
from retrain_worker.training.fit import FineTune
from retrain_worker.training.warm import warm_head

LOW, HIGH = 1e-6, 1.0
STEPS = 100
DIVERGED = 4.0  # times the lowest smoothed loss


def find(context: Context, project: ProjectContext, name: str, by: str) -> dict[str, Any]:
    """Test the project's own settings on its newest snapshot; the curve is kept under ``name``."""
    latest = project.snapshots.latest()
    if latest is None:
        raise NotEnoughLabelsError("nothing is labelled yet: a range test needs labelled images")
    progress, policy = JobProgress.of_job(), project.record.config.retrain
    backbone = start_of(context, project)
    examples = train_examples(project, project.snapshot(latest.snapshot))
    class_min = project.record.config.refresh.class_min
    parts = parts_of(examples, source_of(project, backbone), policy, class_min, progress.report)
    run = FineTune(
        backbone, parts, policy.model_copy(update={"schedule": "constant", "ema": 0.0}), project.record.config.seed
    )
    if policy.warm_head:
        run.begin_with(warm_head(parts, backbone))
    rates, losses, diverged = range_test(run, progress)
    smooth = smoothed(losses)
    curve = LrCurve(
        name, by, now(), latest.snapshot, policy.optimiser, policy.batch_size, tuple(rates), tuple(losses),
        tuple(smooth), steepest(rates, smooth), diverged,
    )  # fmt: skip
    keep(project.store, curve)
    return {"suggestion": curve.suggestion}


def range_test(
    run: FineTune, progress: JobProgress, steps: int = STEPS
) -> tuple[list[float], list[float], float | None]:
    """Rates, losses, and the rate at which it diverged; the network is changed: throw it away."""
    shares = [group["lr"] / run.policy.learning_rate for group in run.optimiser.param_groups]
    rates: list[float] = []
    losses: list[float] = []
    for i, batch in enumerate(_endless(run, steps)):
        rate = LOW * (HIGH / LOW) ** (i / max(steps - 1, 1))
        for group, share in zip(run.optimiser.param_groups, shares, strict=True):
            group["lr"] = rate * share
        loss = run.learn_from(batch, i)
        if not math.isfinite(loss):
            return rates, losses, rate
        rates.append(rate)
        losses.append(loss)
        smooth = smoothed(losses)
        if smooth[-1] > DIVERGED * min(smooth):
            return rates, losses, rate
        progress.report("test learning rates", i + 1, steps)
    return rates, losses, None


def _endless(run: FineTune, steps: int) -> Iterator[Any]:
    """Batches of one epoch after the other."""
    done, number, policy = 0, 0, run.policy
    while done < steps:
        number += 1
        order = epoch_order(run.learned, number, seed=run.seed, balance=policy.balance, classes=len(run.parts.classes))
        for batch in batches(run.learned, order, policy.batch_size, Shard(), Waits()):
            yield batch
            done += 1
            if done == steps:
                return
