"""A served model as two modules of torch, network and head: the same numbers, in a form that exporters take.

They are exported apart and joined afterwards, because only the network may be quantised: the head is a thousandth of
the work and all of the calibration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from labelloop.errors import SettingsError
from labelloop.model.classifier import Classifier
from labelloop.model.ensemble import EnsembleHead
from labelloop.model.head import Head, Novelty
from labelloop.model.net import Backbone
from labelloop.rules.schema import Names
from retrain_worker.exports.formats import Outputs

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

EXAMPLES = 2  # images that an exporter follows through the network; one alone would be taken for a constant
TINY = 1e-30
ANY = Dim("n", min=1, max=4096)  # images at once


class Network(nn.Module):
    """(n, 3, size, size) uint8 RGB to (n, dimension): preprocessing of values and backbone, as `Backbone.features`."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(backbone.record.preprocessing["mean"]).view(shape))
        self.register_buffer("std", torch.tensor(backbone.record.preprocessing["std"]).view(shape))
        self.body = backbone.module

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.body((images.float() / 255 - self.mean) / self.std)
        return features


class LinearHead(nn.Module):
    """(n, dimension) to probabilities (n, labels): calibrated, under the names that classes have now."""

    weight: Tensor
    bias: Tensor
    sums: Tensor

    def __init__(self, head: Head, names: Names) -> None:
        super().__init__()
        self.renames = renames(names)
        self.register_buffer("sums", torch.from_numpy(np.array(names.sums, dtype=np.float32)))
        self.register_buffer("weight", torch.from_numpy(np.array(head.weight / head.temperature, dtype=np.float32)))
        self.register_buffer("bias", torch.from_numpy(np.array(head.bias / head.temperature, dtype=np.float32)))

    def forward(self, features: Tensor) -> Tensor:
        rows = torch.softmax(nn.functional.linear(features, self.weight, self.bias), dim=1)
        if not self.renames:
            return rows
        merged = rows @ self.sums
        return merged / merged.sum(dim=1, keepdim=True).clamp_min(TINY)


class UnseenHead(nn.Module):
    """(n, dimension) to probabilities (n, labels) and the probability (n,) of a class that nobody has labelled."""

    centre: Tensor
    means: Tensor

    def __init__(self, head: Head, names: Names, novelty: Novelty) -> None:
        super().__init__()
        self.linear = LinearHead(head, names)
        self.register_buffer("centre", torch.from_numpy(np.array(novelty.centre, dtype=np.float32)))
        self.register_buffer("means", torch.from_numpy(np.array(novelty.means, dtype=np.float32)))
        self.slope, self.offset = novelty.slope, novelty.offset

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        likeness = (_unit(_unit(features) - self.centre) @ self.means.T).amax(dim=1)
        odds = (self.offset - self.slope * likeness).clamp(-60, 60)
        return self.linear(features), torch.sigmoid(odds)


def renames(names: Names) -> bool:
    """Whether classes were merged or dropped: other names alone change no number."""
    return names.sums.shape[0] != names.sums.shape[1]


def _unit(rows: Tensor) -> Tensor:
    return rows / (rows * rows).sum(dim=1, keepdim=True).sqrt().clamp_min(1e-12)


class Whole(nn.Module):
    """Network and head in one, for formats that are never taken apart."""

    def __init__(self, network: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        said: Tensor | tuple[Tensor, Tensor] = self.head(self.network(images))
        return said


@dataclass(frozen=True, slots=True)
class Parts:
    """A served model, and how it is exported."""

    backbone: Backbone  # on the CPU
    classifier: Classifier
    names: Names  # what its classes are called now

    @property
    def size(self) -> int:
        """Pixels a side."""
        return self.backbone.square.size

    @property
    def outputs(self) -> tuple[str, ...]:
        """Their names, in order."""
        return ("probabilities", "unseen") if _novelty(self.classifier) else ("probabilities",)

    def network(self) -> nn.Module:
        """Pixels to features."""
        return Network(self.backbone).eval()

    def head(self) -> nn.Module:
        """Features to probabilities, of a linear head; `formats.check_holds` has refused all others."""
        head = self.classifier
        assert isinstance(head, Head)
        linear = LinearHead(head, self.names)
        return (UnseenHead(head, self.names, head.novelty) if head.novelty else linear).eval()

    def whole(self) -> nn.Module:
        """Pixels to probabilities."""
        return Whole(self.network(), self.head()).eval()

    def example(self, images: int = EXAMPLES) -> Tensor:
        """Pixels for an exporter to follow."""
        return torch.randint(0, 256, (images, 3, self.size, self.size), dtype=torch.uint8)

    def reference(self, pixels: Pixels) -> Outputs:
        """What the served model says: network and head as they serve."""
        features = self.backbone.features(pixels)
        unseen = self.classifier.unseen(features) if _novelty(self.classifier) else None
        return Outputs(self.names.of(self.classifier.probabilities(features)), unseen)


def programs(parts: Parts) -> tuple[ExportedProgram, ExportedProgram | None]:
    """Network and head, for any number of images; the head is None where it is no module of torch: an ensemble."""
    network = followed(parts.network(), parts.example())
    if isinstance(parts.classifier, EnsembleHead):
        return network, None
    return network, followed(parts.head(), torch.zeros(EXAMPLES, parts.classifier.dimension))


def followed(module: nn.Module, example: Tensor, *, any_number: bool = True) -> ExportedProgram:
    """The module as a graph; SettingsError where torch cannot follow the network."""
    try:
        with torch.no_grad():
            return torch.export.export(module, (example,), dynamic_shapes=({0: ANY},) if any_number else None)
    except Exception as error:  # torch's exporter has no base of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SettingsError(
            f"this network cannot be exported: torch cannot follow it ({reason[:200]}). Use --to torchscript, or "
            "another backbone"
        ) from error


def _novelty(classifier: Classifier) -> Novelty | None:
    return classifier.novelty if isinstance(classifier, Head) else None
