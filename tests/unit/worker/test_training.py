"""Fine-tuning: what repeats, what resumes, what is kept, and that it learns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_digits
from structlog.testing import capture_logs

from labelloop.config.project import BackboneSpec
from labelloop.config.training import Retrain
from labelloop.model import net
from labelloop.model.head import Head
from labelloop.objects.storage import MemoryStore
from labelloop.records.images import Example, Split
from retrain_worker.training import fit as fit_module
from retrain_worker.training.augment import SETS, Augmenter
from retrain_worker.training.batches import Shard, Waits, batches, epoch_order, steps_per_epoch
from retrain_worker.training.checkpoint import NoKeeper, StoredKeeper
from retrain_worker.training.fit import FineTune, FineTuneHistory, fit, freezes_norm
from retrain_worker.training.optimiser import blocks, make_optimiser
from retrain_worker.training.parts import Part, Parts, class_weights, divide, weighted

CLASSES = tuple("0123456789")
TINY = {"filters": [8], "dense": 16, "dropout": 0.0}


def part(images: np.ndarray[Any, np.dtype[np.uint8]], targets: np.ndarray[Any, np.dtype[np.int64]]) -> Part:
    return Part(images, targets, np.ones(len(targets), dtype=np.float32))


@pytest.fixture(scope="module")
def digits() -> Parts:
    images, labels = load_digits(return_X_y=True)
    gray = (images.reshape(-1, 8, 8) / 16 * 255).astype(np.uint8)
    pixels = np.repeat(gray.repeat(2, axis=1).repeat(2, axis=2)[:, None, :12, :12], 3, axis=1)
    targets = labels.astype(np.int64)
    return Parts(part(pixels[:300], targets[:300]), part(pixels[300:500], targets[300:500]), CLASSES)


def tuned(
    parts: Parts, *, seed: int = 0, keeper: Any = None, report: Any = None, **policy: Any
) -> tuple[FineTune, FineTuneHistory]:
    backbone = net.build(BackboneSpec(name="pixels"), []).clone()
    settings = {"epochs": 3, "backbone_rate": 1.0, "precision": "fp32", **policy}
    run = FineTune(backbone, parts, Retrain(**settings), seed, keeper or NoKeeper(), report or (lambda *_: None))
    return run, fit(run)


def weights_of(run: FineTune) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in run.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_it_learns(digits: Parts) -> None:
    _, history = tuned(digits, epochs=12)
    best = history.epochs[history.best - 1]
    assert best.validation_accuracy is not None
    assert best.validation_accuracy > 0.8
    assert history.epochs[-1].loss < history.epochs[0].loss


@pytest.mark.parametrize("policy", [{}, {"augment": "light", "mixup": 0.2}, {"ema": 0.9, "schedule": "cosine"}])
def test_the_same_seed_gives_the_same_weights(digits: Parts, policy: dict[str, Any]) -> None:
    first, second = tuned(digits, **policy), tuned(digits, **policy)
    assert same(weights_of(first[0]), weights_of(second[0]))
    assert not same(weights_of(first[0]), weights_of(tuned(digits, seed=1, **policy)[0]))


class KilledError(Exception):
    pass


@pytest.mark.parametrize(
    "policy",
    [
        {"optimiser": "adamw", "schedule": "onecycle"},
        {"optimiser": "sgd", "schedule": "cosine", "ema": 0.9, "augment": "light"},
        {"optimiser": "rmsprop", "schedule": "plateau", "learning_rate": 1e-4},
        {"optimiser": "adam", "schedule": "constant", "mixup": 0.3, "cutmix": 0.3, "balance": "sampling"},
    ],
)
@pytest.mark.parametrize("after", [1, 14, 25])
def test_a_killed_run_ends_as_if_nothing_had_been(digits: Parts, policy: dict[str, Any], after: int) -> None:
    undisturbed, expected = tuned(digits, **policy)
    store = MemoryStore()

    def killed(_: str, step: int, __: int) -> None:
        if step == after:
            raise KilledError

    keeper = StoredKeeper(store, {"run": 1})
    with pytest.raises(KilledError):
        tuned(digits, keeper=keeper, report=killed, **policy)
    again, found = tuned(digits, keeper=StoredKeeper(store, {"run": 1}), **policy)
    assert found.resumed_at == (after - 1) // steps_per_epoch(300, 32)
    assert same(weights_of(undisturbed), weights_of(again))
    assert [e.loss for e in found.epochs] == [e.loss for e in expected.epochs]
    keeper.clear()
    assert list(store.list("")) == []


def dropping(parts: Parts, *, keeper: Any = None, report: Any = None, epochs: int = 3) -> FineTune:
    """A network with dropout, fine-tuned."""
    options = {"filters": [8], "dense": 16, "dropout": 0.5}
    backbone = net.build(BackboneSpec(name="small_cnn", image_size=12, options=options), [])
    policy = Retrain(epochs=epochs, backbone_rate=1.0, precision="fp32")
    run = FineTune(backbone, parts, policy, 0, keeper or NoKeeper(), report or (lambda *_: None))
    fit(run)
    return run


def test_what_dropout_drops_is_decided_by_the_epoch_and_not_by_what_came_before(digits: Parts) -> None:
    undisturbed, keeper = dropping(digits), StoredKeeper(MemoryStore(), {"run": 1})

    def killed(_: str, step: int, __: int) -> None:
        if step == 14:
            raise KilledError

    with pytest.raises(KilledError):
        dropping(digits, keeper=keeper, report=killed)
    assert same(weights_of(undisturbed), weights_of(dropping(digits, keeper=keeper)))


def test_a_damaged_checkpoint_starts_over(digits: Parts) -> None:
    store = MemoryStore()
    tuned(digits, keeper=StoredKeeper(store, {"run": 1}), epochs=1)
    (tensors,) = [i.key for i in store.list("") if i.key.endswith(".safetensors")]
    store.put(tensors, store.get(tensors)[:-5])
    _, history = tuned(digits, keeper=StoredKeeper(store, {"run": 1}), epochs=2)
    assert history.resumed_at == 0
    assert len(history.epochs) == 2


def test_a_checkpoint_whose_tensors_are_anothers_starts_over(digits: Parts) -> None:
    """Well-formed: only the recorded hash tells."""
    store = MemoryStore()
    for run, seed in ((1, 0), (2, 5)):
        tuned(digits, keeper=StoredKeeper(store, {"run": run}), epochs=1, seed=seed)
    ours, theirs = (
        next(i.key for i in store.list(StoredKeeper(store, {"run": run})._place) if i.key.endswith(".safetensors"))
        for run in (1, 2)
    )
    store.put(ours, store.get(theirs))
    assert StoredKeeper(store, {"run": 1}).load() is None
    assert StoredKeeper(store, {"run": 2}).load() is not None


def test_another_runs_checkpoint_is_not_taken(digits: Parts) -> None:
    store = MemoryStore()
    tuned(digits, keeper=StoredKeeper(store, {"snapshot": "a"}), epochs=1)
    assert StoredKeeper(store, {"snapshot": "b"}).load() is None


def test_it_ends_early_and_keeps_the_best_epoch(digits: Parts) -> None:
    wrong = Parts(digits.train, part(digits.validation.images, (digits.validation.targets + 1) % 10), CLASSES)
    run, history = tuned(wrong, epochs=12, patience=2)
    assert len(history.epochs) == history.best + 2 < 12
    _, short = tuned(wrong, epochs=12, report=None, patience=2)
    assert short.best == history.best
    best = history.epochs[history.best - 1]
    assert best.validation_accuracy == max(e.validation_accuracy or 0 for e in history.epochs)
    assert run.best_epoch == history.best


def test_without_a_validation_part_the_last_epoch_is_kept(digits: Parts) -> None:
    empty = part(digits.validation.images[:0], digits.validation.targets[:0])
    _, history = tuned(Parts(digits.train, empty, CLASSES), epochs=3)
    assert history.best == 3
    assert history.epochs[-1].validation_accuracy is None


def test_the_layer_begins_as_the_head(digits: Parts) -> None:
    backbone = net.build(BackboneSpec(name="pixels"), []).clone()
    draw = np.random.default_rng(0)
    labels = tuple(reversed(CLASSES))
    head = Head(labels, draw.normal(size=(10, backbone.record.dimension)).astype(np.float32),
                draw.normal(size=10).astype(np.float32), 2.0)  # fmt: skip
    run = FineTune(backbone, digits, Retrain(precision="fp32"), 0)
    run.begin_with(head)
    run.model.eval()
    images = digits.validation.images[:20]
    with torch.inference_mode():
        found = torch.softmax(run.model(backbone.normalise(torch.from_numpy(images))), dim=1).numpy()
    expected = head.probabilities(backbone.features(images))[:, ::-1]
    assert np.allclose(found, expected, atol=1e-4)


def test_balance_reaches_the_loss(digits: Parts) -> None:
    few = np.r_[np.arange(200), np.flatnonzero(digits.train.targets[200:] == 3) + 200]
    skewed = Parts(part(digits.train.images[few], digits.train.targets[few]), digits.validation, CLASSES)
    plain, balanced = tuned(skewed, epochs=1), tuned(skewed, epochs=1, balance="weights")
    assert not same(weights_of(plain[0]), weights_of(balanced[0]))


def test_a_head_that_lacks_a_class_is_not_begun_with(digits: Parts) -> None:
    backbone = net.build(BackboneSpec(name="pixels"), []).clone()
    head = Head(("0", "1"), np.zeros((2, backbone.record.dimension), np.float32), np.zeros(2, np.float32))
    run = FineTune(backbone, digits, Retrain(epochs=1, precision="fp32"), 0)
    assert fit(run, head).best == 1


def test_the_averaged_weights_are_the_average_of_the_steps(digits: Parts) -> None:
    """The first step's weights, then of each step a share of 1 - decay."""
    seen: list[dict[str, torch.Tensor]] = []
    backbone = net.build(BackboneSpec(name="small_cnn", image_size=12, options=TINY), [])
    none = Parts(digits.train, part(digits.validation.images[:0], digits.validation.targets[:0]), CLASSES)
    policy = Retrain(epochs=1, backbone_rate=1.0, precision="fp32", ema=0.7, learning_rate=0.05)
    run = FineTune(backbone, none, policy, 0, report=lambda *_: seen.append(weights_of(run)))
    fit(run)
    assert len(seen) == steps_per_epoch(300, 32)
    expected = seen[0]
    for weights in seen[1:]:
        expected = {k: 0.7 * v + 0.3 * weights[k] for k, v in expected.items()}
    kept = weights_of(run)
    assert all(torch.allclose(kept[k], v, atol=1e-5) for k, v in expected.items())
    assert not all(torch.allclose(kept[k], v, atol=1e-2) for k, v in seen[-1].items())


@pytest.mark.parametrize("frozen", [True, False])
def test_statistics_of_norms_move_only_where_they_are_not_frozen(digits: Parts, frozen: bool) -> None:
    backbone = net.build(BackboneSpec(name="mobilenetv3_small_050", image_size=32, pretrained=False), [])
    few = Parts(part(digits.train.images[:64], digits.train.targets[:64]), digits.validation, CLASSES)
    before = {k: v.clone() for k, v in backbone.module.named_buffers() if "running" in k}
    fit(FineTune(backbone, few, Retrain(epochs=1, precision="fp32", freeze_norm=frozen), 0))
    after = dict(backbone.module.named_buffers())
    assert before
    assert all(torch.equal(before[k], after[k]) is frozen for k in before)


def test_norms_are_frozen_where_the_network_came_with_weights() -> None:
    learned = net.build(BackboneSpec(name="tf_efficientnet_lite0"), [], offline=True)
    blank = net.build(BackboneSpec(name="tf_efficientnet_lite0", pretrained=False), [], offline=True)
    assert freezes_norm(Retrain(), learned)
    assert not freezes_norm(Retrain(), blank)
    assert not freezes_norm(Retrain(freeze_norm=False), learned)
    assert freezes_norm(Retrain(freeze_norm=True), blank)


def test_a_backbone_whose_rate_is_zero_stays_as_it_is(digits: Parts) -> None:
    backbone = net.build(BackboneSpec(name="small_cnn", image_size=12, options=TINY), [])
    before = {k: v.clone() for k, v in backbone.module.state_dict().items()}
    fit(FineTune(backbone, digits, Retrain(epochs=1, precision="fp32", backbone_rate=0.0), 0))
    assert same(before, backbone.module.state_dict())
    fit(FineTune(backbone, digits, Retrain(epochs=1, precision="fp32", backbone_rate=0.1), 0))
    assert not same(before, backbone.module.state_dict())


# --- batches


def test_every_row_comes_once_in_an_order_that_the_epoch_decides() -> None:
    data = part(np.zeros((70, 3, 2, 2), np.uint8), np.arange(70) % 5)
    orders = [epoch_order(data, e, seed=3, balance="none", classes=5) for e in (1, 1, 2)]
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    assert sorted(orders[0]) == list(range(70))


def test_sampling_shows_every_class_as_often() -> None:
    targets = np.array([0] * 900 + [1] * 90 + [2] * 10)
    data = part(np.zeros((1000, 3, 1, 1), np.uint8), targets)
    seen = np.bincount(targets[epoch_order(data, 1, seed=0, balance="sampling", classes=3)], minlength=3)
    assert (np.abs(seen - 333) < 80).all()


def test_class_weights_give_every_class_the_same_sum() -> None:
    targets = np.array([0] * 30 + [1] * 10)
    weights = class_weights(targets, 2)
    assert weights.mean() == pytest.approx(1)
    assert weights[:30].sum() == pytest.approx(weights[30:].sum())
    assert np.array_equal(weighted(part(np.zeros((40, 3, 1, 1), np.uint8), targets), 2).weights, weights)


def test_several_processes_share_each_batch() -> None:
    data = part(np.arange(40, dtype=np.uint8)[:, None, None, None], np.zeros(40, np.int64))
    order = np.arange(40)
    whole = [b.images.flatten().tolist() for b in batches(data, order, 8, Shard(), Waits())]
    shares = [[b.images.flatten().tolist() for b in batches(data, order, 8, Shard(r, 2), Waits())] for r in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*shares, strict=True)] == whole


def test_a_last_batch_of_one_is_left_out() -> None:
    assert steps_per_epoch(65, 32) == 2
    assert steps_per_epoch(66, 32) == 3
    assert steps_per_epoch(1, 32) == 1
    assert [steps_per_epoch(n, 32, 4) for n in (71, 72)] == [2, 3]  # a batch of eight is two rows for each of four


def test_an_error_of_the_reader_reaches_the_trainer() -> None:
    data = part(np.zeros((4, 3, 1, 1), np.uint8), np.zeros(4, np.int64))
    with pytest.raises(IndexError):
        list(batches(data, np.array([0, 99]), 2, Shard(), Waits()))


# --- parts


def example(n: int, label: str, bucket: Split = Split.TRAIN) -> Example:
    return Example(n, f"s3://images/{n}", f"group{n}", bucket, label)


def test_growing_moves_no_image_between_the_parts() -> None:
    before = divide([example(n, "ab"[n % 2]) for n in range(300)], 0.2)
    after = divide([example(n, "ab"[n % 2]) for n in range(1300)], 0.2)
    for then, now in zip(before, after, strict=True):
        assert {e.uri for e in then} <= {e.uri for e in now}
    assert 0.15 < len(after[1]) / 1300 < 0.25


def test_images_of_other_buckets_are_refused() -> None:
    for bucket in (Split.TEST, Split.AUDIT):
        with pytest.raises(ValueError, match="never trains"):
            divide([example(1, "a"), example(2, "b", bucket)], 0.2)


def test_a_class_is_never_only_validated() -> None:
    train, kept = divide([example(n, f"class{n}") for n in range(50)], 0.5)
    assert len(train) == 50
    assert kept == []


# --- augmentation


@dataclass
class Batch:
    images: torch.Tensor = field(default_factory=lambda: torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8))
    targets: torch.Tensor = field(default_factory=lambda: torch.arange(6) % 3)


@pytest.mark.parametrize("augment", sorted(SETS))
def test_a_seed_changes_a_batch_in_one_way(augment: Any) -> None:
    batch, augmenter = Batch(), Augmenter(Retrain(augment=augment, mixup=0.4, cutmix=0.4), 3)
    first, again, other = (augmenter(batch.images, batch.targets, seed) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == batch.images.shape
    assert float(first[0].min()) >= 0
    assert float(first[0].max()) <= 255
    assert torch.allclose(first[1].sum(dim=1), torch.ones(6))


def test_none_changes_nothing() -> None:
    batch = Batch()
    images, shares = Augmenter(Retrain(augment="none"), 3)(batch.images, batch.targets, 5)
    assert torch.equal(images, batch.images)
    assert torch.equal(shares.argmax(dim=1), batch.targets)


def test_each_image_of_a_batch_is_changed_by_its_own_draw() -> None:
    one = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    images, _ = Augmenter(Retrain(augment="light"), 2)(one.repeat(8, 1, 1, 1), torch.zeros(8, dtype=torch.int64), 0)
    assert len({tuple(image.flatten()[:50].tolist()) for image in images}) > 4


def test_drawing_leaves_the_callers_randomness_alone() -> None:
    batch, augmenter = Batch(), Augmenter(Retrain(augment="light"), 3)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    augmenter(batch.images, batch.targets, 1)
    assert torch.equal(torch.rand(3), expected)


def test_a_cut_shows_as_much_of_the_partner_as_the_shares_say() -> None:
    images = torch.stack([torch.full((3, 40, 40), 10 * i, dtype=torch.uint8) for i in range(4)])
    found, shares = Augmenter(Retrain(cutmix=1.0), 4)(images, torch.arange(4), 3)
    for i in range(4):
        stayed = (found[i, 0] == 10 * i).float().mean()
        assert float(shares[i, i]) == pytest.approx(float(stayed), abs=1e-6)


# --- rates


def test_layers_further_down_learn_slower() -> None:
    backbone = net.build(BackboneSpec(name="mobilenetv3_small_050", pretrained=False), [])
    layer = torch.nn.Linear(backbone.record.dimension, 3)
    policy = Retrain(learning_rate=1.0, backbone_rate=0.5, layer_decay=0.5)
    optimiser = make_optimiser(backbone.module, layer, policy)
    depths = len(blocks(backbone.module))
    assert depths > 5
    top, *below = sorted({g["lr"] for g in optimiser.param_groups}, reverse=True)
    assert top == 1.0
    assert below == [0.5 * 0.5**depth for depth in range(depths)]  # backbone_rate, and layer_decay for each depth
    of = {id(p): g["lr"] for g in optimiser.param_groups for p in g["params"]}
    by_depth = [{of[id(p)] for p in block.parameters()} for block in blocks(backbone.module)]
    assert [*map(max, by_depth)] == [*map(min, by_depth)] == below[::-1]
    trained = [id(p) for g in optimiser.param_groups for p in g["params"]]
    assert sorted(trained) == sorted(id(p) for p in [*backbone.module.parameters(), *layer.parameters()])


def test_norms_and_biases_are_not_decayed() -> None:
    backbone = net.build(BackboneSpec(name="mobilenetv3_small_050", pretrained=False), [])
    optimiser = make_optimiser(backbone.module, torch.nn.Linear(2, 2), Retrain(weight_decay=0.1))
    for group in optimiser.param_groups:
        flat = all(p.ndim <= 1 for p in group["params"])
        assert group["weight_decay"] == (0.0 if flat else 0.1)


@pytest.mark.parametrize("wrong", [{"schedule": "plateau", "validation": 0}, {"patience": 2, "validation": 0}])
def test_what_needs_a_validation_part_says_so(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="set validation above 0"):
        Retrain(**wrong)


def test_without_a_compiler_a_run_goes_on_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_module.shutil, "which", lambda name: None)
    with capture_logs() as lines:
        assert not fit_module._can_compile()
    assert lines[0]["action"] == "compile"
    monkeypatch.setattr(fit_module.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert fit_module._can_compile()
