"""Two processes that share each batch learn what one learns, report, and go on from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelloop.config.project import BackboneSpec
from labelloop.config.training import Retrain
from labelloop.errors import CancelledError, LabelloopError
from labelloop.model import net
from labelloop.model.net import Backbone
from retrain_worker.training.checkpoint import Checkpoint
from retrain_worker.training.distributed import Launch, fit_on_all, processes_for
from retrain_worker.training.fit import FineTune, fit
from retrain_worker.training.parts import Part, Parts
from retrain_worker.training.pixel_cache import PixelCache
from retrain_worker.training.warm import warm_head

POLICY = Retrain(
    epochs=2, batch_size=32, learning_rate=0.01, optimiser="sgd", schedule="constant", backbone_rate=1.0,
    precision="fp32", freeze_norm=True, processes=2,
)  # fmt: skip


def backbone() -> Backbone:
    options = {"filters": [4], "dense": 8, "dropout": 0.0}
    return net.build(BackboneSpec(name="small_cnn", image_size=8, options=options), [])


def part(n: int, seed: int) -> Part:
    draw = np.random.default_rng(seed)
    targets = draw.integers(0, 2, n)
    images = draw.integers(0, 120, (n, 3, 8, 8), dtype=np.uint8) + (targets * 100).astype(np.uint8)[:, None, None, None]
    return Part(images, targets.astype(np.int64), np.ones(n, dtype=np.float32))


PARTS = Parts(part(96, 0), part(40, 1), ("dark", "light"))


class Kept:
    """A keeper in memory."""

    def __init__(self) -> None:
        self.last: Checkpoint | None = None

    def load(self) -> Checkpoint | None:
        return self.last

    def save(self, checkpoint: Checkpoint) -> None:
        self.last = checkpoint

    def clear(self) -> None:
        self.last = None


@pytest.mark.parametrize("balance", ["none", "weights"])
def test_two_processes_learn_what_one_learns(tmp_path: Path, balance: str) -> None:
    one, two, kept, told = backbone(), backbone(), Kept(), list[Any]()
    head = warm_head(PARTS, one)
    few = np.r_[np.flatnonzero(PARTS.train.targets == 0)[:8], np.flatnonzero(PARTS.train.targets == 1)]
    order = np.random.default_rng(2).permutation(few)
    train = Part(PARTS.train.images[order], PARTS.train.targets[order], PARTS.train.weights[order])
    parts = PARTS if balance == "none" else Parts(train, PARTS.validation, PARTS.classes)
    policy = POLICY.model_copy(update={"balance": balance})
    alone = fit(FineTune(one, parts, policy, 0), head)
    run = FineTune(two, parts, policy, 0, kept, lambda *step: told.append(step))
    both = fit_on_all(Launch(run, head, 2, tmp_path))
    for name, value in one.module.state_dict().items():
        np.testing.assert_allclose(two.module.state_dict()[name].numpy(), value.numpy(), atol=1e-6)
    for mine, theirs in zip(alone.epochs, both.epochs, strict=True):
        assert theirs.loss == pytest.approx(mine.loss, abs=1e-5)
    assert both.best == alone.best
    assert both.epochs[-1].validation_accuracy == alone.epochs[-1].validation_accuracy
    assert told[-1][1] == told[-1][2]
    assert kept.last is not None
    assert kept.last.epoch == 2
    again = backbone()
    resumed = fit_on_all(Launch(FineTune(again, parts, policy, 0, kept), head, 2, tmp_path / "again"))
    assert resumed.resumed_at == 2
    assert resumed.epochs == both.epochs


def test_weights_of_classes_count_once_and_no_pixel_is_copied(tmp_path: Path) -> None:
    """The processes of a run are given the parts as they are, and the pixel cache itself."""
    policy = POLICY.model_copy(update={"balance": "weights", "epochs": 1})
    cache = PixelCache(tmp_path, {}, 8)
    for i, image in enumerate(PARTS.train.images[:]):
        cache.add(str(i), image)
    rows = np.r_[np.flatnonzero(PARTS.train.targets == 0)[:6], np.flatnonzero(PARTS.train.targets == 1)]
    images = cache.images([str(i) for i in rows])
    train = Part(images, PARTS.train.targets[rows], PARTS.train.weights[rows])
    parts = Parts(train, PARTS.validation, PARTS.classes)
    one, two = backbone(), backbone()
    fit(FineTune(one, parts, policy, 0), None)
    run = FineTune(two, parts, policy, 0)
    fit_on_all(Launch(run, None, 1, tmp_path / "run"))
    assert list((tmp_path / "run").glob("train.*")) == []
    assert np.array_equal(run.parts.train.weights, np.ones(len(rows)))
    sums = [run.learned.weights[train.targets == k].sum() for k in (0, 1)]
    assert sums[0] == pytest.approx(sums[1])
    for name, value in one.module.state_dict().items():
        np.testing.assert_allclose(two.module.state_dict()[name].numpy(), value.numpy(), atol=1e-6)


def test_a_cancelled_run_leaves_no_process(tmp_path: Path) -> None:
    def cancelled(*_: Any) -> None:
        raise CancelledError("cancelled by ann")

    run = FineTune(backbone(), PARTS, POLICY, 0, report=cancelled)
    with pytest.raises(CancelledError):
        fit_on_all(Launch(run, None, 1, tmp_path))
    running = [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in _read(p)]
    assert running == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_what_went_wrong_in_a_process_is_told(tmp_path: Path) -> None:
    run = FineTune(backbone(), PARTS, POLICY, 0)
    run.parts = Parts(
        Part(PARTS.train.images, PARTS.train.targets + 7, PARTS.train.weights), PARTS.validation, PARTS.classes
    )
    with pytest.raises(LabelloopError, match="torchrun ended with code 1"):
        fit_on_all(Launch(run, None, 1, tmp_path))


def test_one_process_where_there_is_no_gpu_and_as_many_as_asked() -> None:
    assert processes_for(POLICY) == 2
    assert processes_for(Retrain()) >= 1
