"""The formats a model can be exported to: which library writes each, and what each cannot hold. Light: no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from labelloop.errors import SettingsError

if TYPE_CHECKING:
    from labelloop.model.classifier import Classifier
    from retrain_worker.exports.parts import Floats, Pixels


class Format(StrEnum):
    """What an export is written as."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    TORCHSCRIPT = "torchscript"
    TFLITE = "tflite"


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a model says of n images."""

    probabilities: Floats  # (n, classes), rows sum to 1
    unseen: Floats | None = None  # (n,): of a class that nobody has labelled; None: the model does not say


Run = Callable[["Pixels"], Outputs]  # (n, 3, size, size) uint8


@dataclass(frozen=True, slots=True)
class Kind:
    """What is to be known of a format."""

    files: tuple[str, ...]
    runtime: str  # the package that runs it
    batch: int | None  # images that it takes at once; None: any number


KINDS: Mapping[Format, Kind] = {
    Format.ONNX: Kind(("model.onnx",), "onnxruntime", None),
    Format.OPENVINO: Kind(("model.xml", "model.bin"), "openvino", None),
    Format.TORCHSCRIPT: Kind(("model.pt",), "torch", None),
    Format.TFLITE: Kind(("model.tflite",), "ai-edge-litert", 1),
}


def check_holds(form: Format, head: Classifier, *, quantised: bool) -> None:
    """SettingsError where a format cannot hold the head, or cannot be quantised: said before anything is computed."""
    from labelloop.model.ensemble import EnsembleHead

    if quantised and form is Format.TORCHSCRIPT:
        raise SettingsError(
            "a TorchScript export cannot be quantised: torch no longer does it for CPUs. Use --to onnx, openvino or "
            "tflite, or leave --quantise out"
        )
    if isinstance(head, EnsembleHead) and form is not Format.ONNX:
        raise SettingsError(
            f"the head of this version is an ensemble of {len(head.members)} members with decision trees, which "
            f"{form} cannot hold. Use --to onnx, or export a version with a linear head (`labelloop models`)"
        )
