"""Images and a network in, which of their pixels the answer comes from out (Captum).

Integrated Gradients: Sundararajan, Taly and Yan 2017. Grad-CAM: Selvaraju et al. 2017. Both explain the logit of the
class that is answered, as the calibrated head gives it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam
from torch import Tensor, nn

from labelloop.decoding.square import Pixels
from labelloop.model.head import Head
from labelloop.model.net import Backbone
from labelloop.records.arrays import Floats

STEPS = 32  # points on the way from black to the image
AT_ONCE = 16  # of them in one pass
BRIGHTEST = 99.0  # percentile that becomes 1: a few single pixels would leave all others dark


@dataclass(frozen=True, slots=True)
class Attribution:
    """Of one image. Maps are (H, W) in [0, 1]; None where there is none."""

    integrated: Floats | None
    gained: float  # logit of the image minus that of a black one, which the attributions should sum up to
    summed: float  # what they sum up to
    grad_cam: Floats | None


@dataclass(frozen=True, slots=True)
class Layer:
    """The last convolutional map of a network, or in words why there is none."""

    module: nn.Module | None
    name: str = ""
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class _Event:
    name: str
    module: nn.Module
    shape: tuple[int, ...]


class Attributor:
    """One arm's network with its head on top."""

    def __init__(self, backbone: Backbone, head: Head, steps: int = STEPS) -> None:
        self.model = nn.Sequential(backbone.module, _linear(head).to(backbone.device))
        self.layer = last_map(backbone)
        self._backbone, self._steps = backbone, steps

    def explain(self, image: Pixels, target: int) -> Attribution:
        """(3, size, size) uint8 as the network sees it, and the row of the head that is asked about."""
        normalised = self._backbone.normalise(torch.from_numpy(np.ascontiguousarray(image[None])))
        black = self._backbone.normalise(torch.zeros_like(torch.from_numpy(image[None])))
        shares = self._integrated(normalised, black, target)
        with torch.inference_mode():
            ours, none = self.model(torch.cat([normalised, black]))[:, target].tolist()
        shown = _scaled(shares.abs().sum(dim=1))
        return Attribution(shown, ours - none, float(shares.sum()), self._cam(normalised, target))

    def _integrated(self, image: Tensor, black: Tensor, target: int) -> Tensor:
        """(1, 3, H, W): each value's share of the logit."""
        method = IntegratedGradients(self.model)
        shares = method.attribute(image, black, target=target, n_steps=self._steps, internal_batch_size=AT_ONCE)
        return torch.as_tensor(shares).detach()

    def _cam(self, image: Tensor, target: int) -> Floats | None:
        if self.layer.module is None:
            return None
        method = LayerGradCam(self.model, self.layer.module)
        heat = method.attribute(image, target=target, relu_attributions=True)
        height, width = image.shape[-2:]
        return _scaled(LayerAttribution.interpolate(heat.detach(), (height, width), "bilinear")[:, 0])


def last_map(backbone: Backbone) -> Layer:
    """Found by running it once: the last map of the last convolution's size, so that activations are in it."""
    events = _events(backbone)
    convolutions = [k for k, event in enumerate(events) if _is_map(event) and isinstance(event.module, nn.Conv2d)]
    if not convolutions:
        return Layer(None, why_not="the network has no convolution whose output is a map")
    last = convolutions[-1]
    if any(len(event.shape) == 3 and event.shape[1] > 1 for event in events[last:]):
        return Layer(None, why_not="the network works on tokens (attention) after its last convolution")
    same = [event for event in events[last:] if len(event.shape) == 4 and event.shape[2:] == events[last].shape[2:]]
    return Layer(same[-1].module, same[-1].name)


def _is_map(event: _Event) -> bool:
    return len(event.shape) == 4 and min(event.shape[2:]) > 1


def _events(backbone: Backbone) -> list[_Event]:
    """Every module's output on one black image, in the order in which they end."""
    events: list[_Event] = []
    named = [(name, module) for name, module in backbone.module.named_modules() if name]
    hooks = [module.register_forward_hook(_recorder(name, events)) for name, module in named]
    try:
        size = backbone.square.size
        backbone.features(np.zeros((1, 3, size, size), dtype=np.uint8))
    finally:
        for hook in hooks:
            hook.remove()
    return events


def _recorder(name: str, events: list[_Event]) -> Callable[[nn.Module, object, object], None]:
    def record(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor):
            events.append(_Event(name, module, tuple(output.shape)))

    return record


def _linear(head: Head) -> nn.Linear:
    """The head as a layer: calibrated logits."""
    layer = nn.Linear(head.weight.shape[1], head.weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(head.weight / np.float32(head.temperature)))
        layer.bias.copy_(torch.from_numpy(head.bias / np.float32(head.temperature)))
    return layer.requires_grad_(False)


def _scaled(map_: Tensor) -> Floats | None:
    """(1, H, W) to (H, W) in [0, 1]; None where gradients were not finite, as on an image of one colour."""
    values = map_[0].float().cpu().numpy()
    if not np.isfinite(values).all():
        return None
    top = float(np.percentile(values, BRIGHTEST)) or float(values.max())
    return np.asarray((values / top if top > 0 else values).clip(0, 1), dtype=np.float32)
