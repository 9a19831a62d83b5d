"""Attributions sum up to what they explain, point at what matters, and say where there can be none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from labelloop.decoding.square import Pixels
from labelloop.model.head import Head
from labelloop.model.net import Backbone
from labelloop.records.arrays import Floats
from retrain_worker.report.attribution import Attributor, last_map
from tests.unit.worlds.report import head_of, pixels, png, small_cnn


class HalfBlind(nn.Module):
    """Looks at the left half of an image alone."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        left = images * (torch.arange(images.shape[-1]) < images.shape[-1] // 2)
        return self.activation(self.convolution(left)).mean(dim=(2, 3))


class Tokens(nn.Module):
    """Cuts an image into patches and mixes them, as transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 8, stride=8)
        self.mix = nn.Linear(6, 6)

    def forward(self, images: Tensor) -> Tensor:
        mixed: Tensor = self.mix(self.patches(images).flatten(2).transpose(1, 2))
        return mixed.mean(dim=1)


class Shrinking(nn.Module):
    """Its last convolutions see one point, as squeeze-and-excitation does."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.squeeze = nn.Conv2d(4, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        map_ = self.norm(self.first(images))
        weighted: Tensor = map_.mean(dim=(2, 3)) * self.squeeze(map_.mean(dim=(2, 3), keepdim=True)).flatten(1)
        return weighted


class Spread(nn.Module):
    """The root of the variance, which has no slope where all values are equal."""

    def forward(self, images: Tensor) -> Tensor:
        values = images.flatten(1)
        return (values - values.mean(dim=1, keepdim=True)).square().mean(dim=1, keepdim=True).sqrt()


def of(module: nn.Module, dimension: int, size: int = 32) -> Backbone:
    """A backbone of this very module."""
    record = pixels().record
    preprocessing = {**record.preprocessing, "size": size}
    return Backbone(replace(record, dimension=dimension, preprocessing=preprocessing), module)


def head(dimension: int, classes: int = 3, temperature: float = 0.5) -> Head:
    draw = np.random.default_rng(0)
    weight = draw.normal(size=(classes, dimension)).astype(np.float32)
    return Head(tuple("abc"[:classes]), weight, draw.normal(size=classes).astype(np.float32), temperature)


def seen(backbone: Backbone, number: int = 100) -> Pixels:
    return backbone.decode(png(2, number))


def logit(backbone: Backbone, of: Head, image: Pixels, target: int) -> float:
    features: Floats = backbone.features(image[None])
    return float((features @ of.weight[target] + of.bias[target])[0] / of.temperature)


@pytest.mark.parametrize("target", [0, 1, 2])
def test_integrated_gradients_sum_up_to_the_difference_of_the_calibrated_logits(target: int) -> None:
    backbone = small_cnn()
    ours = head_of(backbone, range(6))
    image = seen(backbone)
    found = Attributor(backbone, ours, steps=256).explain(image, target)
    difference = logit(backbone, ours, image, target) - logit(backbone, ours, np.zeros_like(image), target)
    assert abs(difference) > 0.1
    assert found.gained == pytest.approx(difference, rel=1e-3)
    assert found.summed == pytest.approx(difference, rel=0.02)


def test_more_steps_come_closer() -> None:
    backbone = small_cnn()
    ours, image = head_of(backbone, range(6)), seen(backbone)
    found = [Attributor(backbone, ours, steps).explain(image, 0) for steps in (2, 256)]
    gaps = [abs(one.summed - one.gained) for one in found]
    assert gaps[1] < gaps[0] / 4


def test_pixels_that_the_network_cannot_see_get_nothing() -> None:
    torch.manual_seed(0)
    backbone = of(HalfBlind(), 4)
    found = Attributor(backbone, head(4)).explain(seen(backbone), 1)
    assert found.integrated is not None
    assert found.integrated.shape == (32, 32)
    assert found.integrated[:, 16:].max() == 0
    assert found.integrated[:, :16].max() == 1
    assert (found.integrated[:, :16] > 0).mean() > 0.9


def test_grad_cam_is_the_weighted_map_of_the_last_activation() -> None:
    backbone = small_cnn()
    ours = head_of(backbone, range(6))
    target = 1
    image = seen(backbone)
    attributor = Attributor(backbone, ours)
    assert attributor.layer.name == "blocks.5"  # after the ReLU of the second block, before its pooling
    layers = backbone.module.blocks
    with torch.no_grad():
        given = layers[:6](backbone.normalise(torch.from_numpy(image[None])))
    map_ = given.clone().requires_grad_()
    rest = functional.relu(backbone.module.dense(layers[6:](map_).flatten(1)))
    weight = torch.from_numpy(ours.weight[target])
    (slope,) = torch.autograd.grad((rest @ weight).sum() / ours.temperature, map_)
    cam = functional.relu((slope.mean(dim=(2, 3), keepdim=True) * map_).sum(dim=1, keepdim=True)).detach()
    large = functional.interpolate(cam, (32, 32), mode="bilinear")[0, 0].numpy()
    found = attributor.explain(image, target).grad_cam
    assert found is not None
    assert large.max() > 0
    np.testing.assert_allclose(found, np.clip(large / np.percentile(large, 99), 0, 1), atol=1e-4)


def test_the_last_map_is_that_of_the_last_convolution_that_has_one() -> None:
    assert last_map(of(Shrinking(), 4)).name == "norm"
    assert last_map(of(HalfBlind(), 4)).name == "activation"


@pytest.mark.parametrize(("backbone", "why"), [(pixels(), "no convolution"), (of(Tokens(), 6), "tokens")])
def test_a_network_without_a_map_has_no_grad_cam_and_says_why(backbone: Backbone, why: str) -> None:
    attributor = Attributor(backbone, head(backbone.record.dimension))
    found = attributor.explain(seen(backbone), 0)
    assert found.grad_cam is None
    assert found.integrated is not None
    assert why in attributor.layer.why_not


def test_an_image_without_gradients_has_no_attribution_and_breaks_nothing() -> None:
    flat = np.full((3, 32, 32), 90, dtype=np.uint8)
    attributor = Attributor(of(Spread(), 1), head(1))
    assert attributor.explain(flat, 0).integrated is None
    assert attributor.explain(seen(of(Spread(), 1)), 0).integrated is not None


def test_nothing_stays_behind_in_the_network_that_serves() -> None:
    backbone = small_cnn()
    image = seen(backbone)
    before = backbone.features(image[None])
    Attributor(backbone, head_of(backbone, range(4))).explain(image, 0)
    for module in backbone.module.modules():
        assert not module._forward_hooks
        assert not module._backward_hooks
        assert not module.training
    assert all(p.grad is None for p in backbone.module.parameters())
    np.testing.assert_array_equal(backbone.features(image[None]), before)
