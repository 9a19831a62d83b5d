"""Chosen test images in, pictures of what their answers come from out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labelloop.decoding.square import Pixels
from labelloop.errors import ImageUnreadableError
from labelloop.model.head import Head
from labelloop.records.arrays import Floats
from retrain_worker.report.answers import as_seen, plain
from retrain_worker.report.attribution import Attribution, Attributor
from retrain_worker.report.drawing.pictures import jpeg, overlay
from retrain_worker.report.findings import Explained, Explanations, JudgedImages
from retrain_worker.report.inputs import Inputs


def explain(inputs: Inputs, judged: JudgedImages, places: Sequence[int], classes: Sequence[str]) -> Explanations:
    """The challenger's answers; images that cannot be read are left out."""
    backbone, head = inputs.challenger.backbone, inputs.challenger.head
    assert backbone is not None and isinstance(head, Head)
    attributor = Attributor(backbone, head)
    explained: list[Explained] = []
    for done, place in enumerate(places):
        inputs.progress("attributions", done, len(places))
        one = _explained(inputs, attributor, judged.uris[place], classes[int(judged.truth[place])])
        explained += [one] if one else []
    return Explanations(attributor.layer.name, attributor.layer.why_not, tuple(explained))


def _explained(inputs: Inputs, attributor: Attributor, uri: str, truth: str) -> Explained | None:
    arm = inputs.challenger
    assert inputs.load is not None and arm.backbone is not None
    try:
        square = plain(inputs.load(uri), arm.backbone)
    except ImageUnreadableError:
        return None
    image = as_seen(square[None], arm.backbone)
    row = arm.head.probabilities(arm.backbone.features(image))[0]
    attribution = attributor.explain(image[0], int(row.argmax()))
    name = arm.head.labels[int(row.argmax())]
    return _shown(uri, truth, arm.rules.resolve(name) or name, float(row.max()), square, attribution)


def _shown(
    uri: str, truth: str, answer: str, probability: float, square: Pixels, attribution: Attribution
) -> Explained:
    return Explained(
        uri, truth, answer, probability, attribution.gained, attribution.summed, jpeg(square),
        _heat(square, attribution.integrated), _heat(square, attribution.grad_cam),
    )  # fmt: skip


def _heat(square: Pixels, heat: Floats | None) -> str | None:
    return None if heat is None else jpeg(overlay(square, np.asarray(heat)))
