"""What computes features: faster where it may be, and never with other numbers."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from labelloop.config.project import BackboneSpec
from labelloop.model import net, runners
from labelloop.model.runners import Pixelwise, choose

SIZE = 32
IMAGES = np.random.default_rng(5).integers(0, 256, (11, 3, SIZE, SIZE), dtype=np.uint8)


@pytest.fixture
def backbone() -> net.Backbone:
    return net.build(BackboneSpec(name="mobilenetv3_small_050", pretrained=False, image_size=SIZE), [], offline=True)


@pytest.fixture
def worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an image this small nothing is slow enough."""
    monkeypatch.setattr(runners, "CHEAP", 0.0)


def pixelwise(module: nn.Module) -> Pixelwise:
    return Pixelwise(module, torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1))


def by(module: nn.Module) -> runners.Run:
    return lambda images: module(torch.from_numpy(images).float() / 255).detach().numpy()


def test_both_runners_give_the_same_features(backbone: net.Backbone, worth_it: None) -> None:
    before = backbone.features(IMAGES)
    run = runners.openvino_run(backbone._pixelwise(), SIZE)
    largest = np.abs(before).max()
    assert largest > 0
    for part in (IMAGES, IMAGES[:1], IMAGES[3:6]):
        expected = backbone.features(part)
        assert np.abs(run(part) - expected).max() <= 1e-5 * largest
    assert backbone.runner == "torch"


def test_no_conversion_is_reported_to_anybody(backbone: net.Backbone) -> None:
    runners.openvino_run(backbone._pixelwise(), SIZE)
    assert sys.modules["openvino_telemetry"] is None


def test_the_faster_one_computes_and_many_images_choose_by_themselves(
    backbone: net.Backbone, worth_it: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "_seconds", lambda images, *runs: [1.0, 2.0])
    monkeypatch.setattr(net, "PAYS_AFTER", 20)
    first = backbone.features(IMAGES)
    assert backbone.runner == "torch"
    second = backbone.features(IMAGES)
    assert backbone.runner == "openvino"
    np.testing.assert_allclose(second, first, atol=1e-5 * np.abs(first).max())
    assert backbone.clone().runner == "torch"  # a copy may be trained, and a compiled network would not notice


def test_a_slower_one_a_broken_one_and_other_numbers_stay_out(worth_it: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.layer(images).flatten(1) * float(images.shape[0] != 2)  # another result in the example's trace

    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    one = Odd()
    odd = choose(by(one), lambda: pixelwise(one), SIZE)
    assert (odd.name, "off" in odd.why) == ("torch", True)

    def fail(network: Pixelwise, size: int) -> runners.Run:
        raise RuntimeError("no such operator")

    with monkeypatch.context() as broken:
        broken.setattr(runners, "openvino_run", fail)
        assert "no such operator" in choose(by(plain), lambda: pixelwise(plain), SIZE).why
    monkeypatch.setattr(runners, "_seconds", lambda images, *runs: [2.0, 1.0])
    slow = choose(by(plain), lambda: pixelwise(plain), SIZE)
    assert slow.name == "torch"
    assert "PyTorch 1000.0" in slow.why


def test_transformers_stay_with_torch(worth_it: None) -> None:
    dense = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 4))
    chosen = choose(by(dense), lambda: pixelwise(dense), SIZE)
    assert (chosen.name, "convolutions" in chosen.why) == ("torch", True)


def test_a_cheap_network_is_not_even_tried() -> None:
    built_in = net.build(BackboneSpec(name="pixels"), [], offline=True)
    built_in.quicken()
    assert built_in.runner == "torch"
    assert "openvino" not in built_in._run.__qualname__


def test_a_gpu_computes_features_in_whole_floats(backbone: net.Backbone) -> None:
    seen = []

    class Asks(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(torch.backends.cudnn.allow_tf32)
            return images.flatten(1)

    torch.backends.cudnn.allow_tf32 = True
    net.Backbone(backbone.record, Asks()).features(IMAGES)
    assert seen
    assert not any(seen)
    assert torch.backends.cudnn.allow_tf32  # training goes on as it wants


CONVOLUTIONS = (torch.ops.aten.conv2d.default, torch.ops.aten.convolution.default)


def rounded(values: Tensor) -> Tensor:
    """As TF32 keeps a float: ten bits behind the point."""
    return (values.view(torch.int32) + 0x1000).bitwise_and(~0x1FFF).view(torch.float32)


class Rounding(torch.utils._python_dispatch.TorchDispatchMode):
    """Convolutions as a GPU computes them where TF32 is allowed."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func in CONVOLUTIONS and torch.backends.cudnn.allow_tf32:
            args = (rounded(args[0]), rounded(args[1]), *args[2:])
        return func(*args, **(kwargs or {}))


def test_what_a_cpu_recorded_holds_on_an_emulated_gpu(backbone: net.Backbone) -> None:
    torch.backends.cudnn.allow_tf32 = True
    rows = backbone.features(IMAGES)
    with Rounding():
        net.verify(backbone)
        assert np.abs(backbone.features(IMAGES) - rows).max() <= 1e-6 * np.abs(rows).max()
        with torch.inference_mode():  # the emulation does something
            loose = backbone.module(backbone.normalise(torch.from_numpy(IMAGES))).numpy()
    assert np.abs(loose - rows).max() > 1e-5 * np.abs(rows).max()
