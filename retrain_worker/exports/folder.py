"""What lies beside the model in an export: labels, `model.json`, the card, the example. Pure, but for writing them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelloop.code import code_version
from labelloop.decoding.square import Square
from labelloop.model.ensemble import EnsembleHead
from labelloop.model.head import Head
from labelloop.records.versions import BackboneRecord, Version
from retrain_worker.exports.check import Measured
from retrain_worker.exports.example import NAME as EXAMPLE
from retrain_worker.exports.example import example, packages
from retrain_worker.exports.formats import KINDS, Format
from retrain_worker.exports.parts import Parts

DESCRIPTION, LABELS, CARD = "model.json", "labels.txt", "README.md"


@dataclass(frozen=True, slots=True)
class Origin:
    """What is exported, and what is said of it."""

    title: str  # of the project
    version: Version
    backbone: BackboneRecord
    licence: str  # of the weights that the network began with
    card: str  # Markdown


def describe(
    folder: Path, form: Format, parts: Parts, origin: Origin, measured: Measured, *, quantised: bool
) -> None:  # fmt: skip
    """Write all but the model."""
    about = description(form, parts, origin, measured, quantised=quantised)
    square = parts.backbone.square
    texts = {
        DESCRIPTION: json.dumps(about, ensure_ascii=False, indent=1) + "\n",
        LABELS: "".join(f"{' '.join(label.split())}\n" for label in parts.names.labels),
        CARD: _page(form, square, origin, measured) + origin.card,
        EXAMPLE: example(form, square, unseen=len(parts.outputs) > 1),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def description(
    form: Format, parts: Parts, origin: Origin, measured: Measured, *, quantised: bool
) -> dict[str, Any]:  # fmt: skip
    """`model.json`: everything that a program needs to use the model, and where it came from."""
    version, backbone = origin.version, origin.backbone
    return {
        "project": origin.title, "version": version.name, "made_at": version.created_at,
        "exported_by": f"labelloop {code_version()}", "format": form.value, "files": list(KINDS[form].files),
        "runtime": KINDS[form].runtime, "precision": "int8" if quantised else "float32",
        "labels": list(parts.names.labels),
        "input": {
            "name": "images", "type": "uint8", "shape": [KINDS[form].batch or "n", 3, parts.size, parts.size],
            "meaning": "RGB, 0 to 255: what the steps under preprocessing.outside give",
        },
        "outputs": _outputs(form, parts),
        "preprocessing": {
            "outside": list(steps_in_words(parts.backbone.square)),
            "inside": f"divided by 255, minus mean {list(backbone.preprocessing['mean'])}, divided by "
                      f"{list(backbone.preprocessing['std'])} for each channel",
            "recorded": dict(backbone.preprocessing),
        },
        "calibration": {"temperature": _temperature(parts), "where": "inside the model"},
        "network": {
            "name": backbone.name, "id": backbone.id, "options": dict(backbone.options), "features": backbone.dimension,
            "weights": backbone.provenance, "weights_licence": origin.licence,
            "weights_sha256": backbone.weights_sha256,
        },
        "head_sha256": version.head_sha256, "data_sha256": version.snapshot,
        "measured": measured.to_json(),
    }  # fmt: skip


def steps_in_words(square: Square) -> tuple[str, ...]:
    """What happens to an image before the model sees it, in order."""
    how = square.interpolation
    shape = (
        f"resize the whole image to {square.size}x{square.size} pixels, whatever its aspect ratio"
        if square.squash
        else f"crop the middle square of {square.crop:g} of the shorter side, resize it to {square.size}x{square.size}"
    )
    return (
        "decode; a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size while it stays larger than needed",
        "turn as EXIF says",
        "grays of more than 8 bits: divide by 16 where no value is above 4095, else by 256, unless all are below 256",
        "transparency: put on white; any other mode: to RGB",
        f"{shape} ({how}, as Pillow does with reducing_gap=3)",
        *(f"{json.dumps(dict(step))}, as OpenCV does on 8 bits" for step in square.steps),
        "to channels first: (3, height, width)",
    )


def _outputs(form: Format, parts: Parts) -> list[Mapping[str, Any]]:
    rows = KINDS[form].batch or "n"
    meanings = {
        "probabilities": ("of each label, in their order; calibrated, they sum to 1", [rows, len(parts.names.labels)]),
        "unseen": ("probability that the image is of a class that people can choose but nobody has labelled", [rows]),
    }  # fmt: skip
    return [
        {"name": name, "type": "float32", "shape": shape, "meaning": meaning}
        for name, (meaning, shape) in meanings.items()
        if name in parts.outputs
    ]


def _temperature(parts: Parts) -> float:
    head = parts.classifier
    assert isinstance(head, Head | EnsembleHead)
    return head.temperature


def _page(form: Format, square: Square, origin: Origin, measured: Measured) -> str:
    needs = " ".join(packages(form, square))
    return (
        f"# {origin.title} {origin.version.name} as {form}\n\n"
        f"    pip install {needs}\n    python {EXAMPLE} photo.jpg\n\n"
        f"{measured.words}. Input, outputs and preprocessing: `{DESCRIPTION}`; classes in order: `{LABELS}`. "
        f"Weights of the network: {origin.licence}.\n\n"
        "The rest of this page is the model card of the version.\n\n"
    )
