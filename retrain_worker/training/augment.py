"""Images of a batch changed at random while a network learns: each by its own draw, on the device. Never elsewhere.

The sets are named by how far they go. `heavy` covers what published pipelines call so: quarter turns, flips,
transposition, noise, blur, shift-scale-rotate, distortion, CLAHE and hue. Kornia is imported where a set needs it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from labelloop.config.training import Retrain

Shares = Tensor  # (b, classes): how much of each class an image shows; rows sum to 1


def _none() -> list[nn.Module]:
    return []


def _light() -> list[nn.Module]:
    import kornia.augmentation as kornia

    return [
        kornia.RandomAffine(8.0, (0.08, 0.08), (0.9, 1.15), padding_mode="reflection", p=0.8),
        kornia.RandomBrightness((0.8, 1.2), p=0.5),
        kornia.RandomContrast((0.8, 1.2), p=0.5),
    ]


def _heavy() -> list[nn.Module]:
    """A quarter turn and a flip together are every transposition."""
    import kornia.augmentation as kornia

    return [
        kornia.RandomRotation90((0, 3), p=0.5),
        kornia.RandomHorizontalFlip(p=0.5),
        kornia.RandomAffine(45.0, (0.0625, 0.0625), (0.8, 1.2), padding_mode="reflection", p=0.5),
        kornia.RandomThinPlateSpline(scale=0.1, p=0.2),
        kornia.RandomClahe((1.0, 2.0), p=0.2),
        kornia.RandomHue((-0.1, 0.1), p=0.3),
        kornia.RandomBrightness((0.8, 1.2), p=0.3),
        kornia.RandomContrast((0.8, 1.2), p=0.3),
        kornia.RandomGaussianBlur((5, 5), (0.3, 1.5), p=0.2),
        kornia.RandomGaussianNoise(std=0.04, p=0.3),
    ]


def _flip() -> list[nn.Module]:
    import kornia.augmentation as kornia

    return [kornia.RandomHorizontalFlip(p=0.5)]


SETS: dict[str, Callable[[], list[nn.Module]]] = {"none": _none, "light": _light, "heavy": _heavy}


class Augmenter:
    """A policy's changes. The same seed changes the same batch in the same way."""

    def __init__(self, policy: Retrain, classes: int) -> None:
        flip = _flip() if policy.mirror and policy.augment != "heavy" else []
        self._changes = nn.Sequential(*flip, *SETS[policy.augment]())
        self._mixup, self._cutmix, self._classes = policy.mixup, policy.cutmix, classes

    def __call__(self, images: Tensor, targets: Tensor, seed: int) -> tuple[Tensor, Shares]:
        """(b, 3, H, W) uint8 and (b,) to images in [0, 255], perhaps float, and shares of the classes."""
        shares = functional.one_hot(targets, self._classes).float()
        with torch.random.fork_rng(devices=[images.device] if images.device.type == "cuda" else []):
            torch.manual_seed(seed)
            if len(self._changes):
                images = self._changes(images.float().div_(255)).clamp_(0, 1).mul_(255)
        return self._mixed(images, shares, np.random.default_rng(seed))

    def _mixed(self, images: Tensor, shares: Shares, draw: np.random.Generator) -> tuple[Tensor, Shares]:
        """Mixup (Zhang et al. 2018), CutMix (Yun et al. 2019); half of the batches each where both are wanted."""
        if len(images) < 2 or not (self._mixup or self._cutmix):
            return images, shares
        partner = torch.from_numpy(draw.permutation(len(images))).to(images.device)
        cuts = bool(self._cutmix) and (not self._mixup or draw.random() < 0.5)
        alpha = self._cutmix if cuts else self._mixup
        kept = float(draw.beta(alpha, alpha))
        if cuts:
            images, kept = _cut(images, partner, kept, draw)
        else:
            images = images.float() * kept + images[partner].float() * (1 - kept)
        return images, shares * kept + shares[partner] * (1 - kept)


def _cut(images: Tensor, partner: Tensor, kept: float, draw: np.random.Generator) -> tuple[Tensor, float]:
    """A box of the partner's image put in; returns the share that stayed, which clipping at the edge makes larger."""
    height, width = images.shape[2:]
    half = np.sqrt(1 - kept) / 2
    y, x = draw.random() * height, draw.random() * width
    top, bottom = (int(np.clip(v, 0, height)) for v in (y - half * height, y + half * height))
    left, right = (int(np.clip(v, 0, width)) for v in (x - half * width, x + half * width))
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[partner][:, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)
