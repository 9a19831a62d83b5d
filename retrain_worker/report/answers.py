"""Test images in, what each arm says of them out: clean and disturbed, read once, a few in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from labelloop import pixel_steps
from labelloop.decode import Pixels, decode
from labelloop.errors import ImageUnreadableError
from labelloop.head import Floats
from retrain_worker.report.inputs import Arm, Inputs
from retrain_worker.report.robustness import DISTURBANCES, Disturbance, disturb

if TYPE_CHECKING:
    from labelloop.net import Backbone

AT_ONCE = 32  # images in memory
STAGE = "test images, clean and disturbed"


@dataclass(frozen=True, slots=True)
class Answers:
    """Of one arm: (readable images, classes) each. Empty for an arm whose backbone is not there."""

    clean: Floats | None = None
    disturbed: Mapping[Disturbance, Floats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Looked:
    """What came of looking at the pixels."""

    readable: NDArray[np.bool_]  # (test images,); all where nobody looked
    problems: Mapping[str, str]  # uri -> why it was left out
    arms: tuple[Answers, ...]


@dataclass(frozen=True, slots=True)
class _Batch:
    uris: tuple[str, ...]  # readable ones
    squares: tuple[Pixels, ...]  # one (k, 3, size, size) per backbone, before its steps
    problems: Mapping[str, str]


def look(inputs: Inputs, classes: Sequence[str]) -> Looked:
    """Every test image past every backbone, if there are pixels; what ``load`` raises otherwise goes through."""
    backbones = list({a.backbone.record.id: a.backbone for a in inputs.arms if a.backbone}.values())
    if inputs.load is None or not backbones or not inputs.uris:
        return Looked(np.ones(len(inputs.uris), dtype=np.bool_), {}, tuple(Answers() for _ in inputs.arms))
    problems: dict[str, str] = {}
    found: list[dict[Disturbance | None, list[Floats]]] = [{} for _ in inputs.arms]
    for batch in _batches(inputs, backbones):
        problems.update(batch.problems)
        for backbone, squares in zip(backbones, batch.squares, strict=False):  # none where all were unreadable
            _answer(inputs, backbone, batch.uris, squares, found)
    readable = np.array([uri not in problems for uri in inputs.uris], dtype=np.bool_)
    arms = tuple(_joined(arm, rows, classes) for arm, rows in zip(inputs.arms, found, strict=True))
    return Looked(readable, problems, arms)


def as_seen(squares: Pixels, backbone: Backbone) -> Pixels:
    """(n, 3, size, size) uint8 with the backbone's own steps done to each."""
    steps = backbone.square.steps
    if not steps:
        return squares
    rows = [pixel_steps.apply(np.ascontiguousarray(image.transpose(1, 2, 0)), steps) for image in squares]
    return np.stack(rows).transpose(0, 3, 1, 2)


def plain(data: bytes, backbone: Backbone) -> Pixels:
    """Image bytes to the (3, size, size) square before the backbone's steps; ImageUnreadableError."""
    return decode(data, replace(backbone.square, steps=()))


def _batches(inputs: Inputs, backbones: Sequence[Backbone]) -> Iterator[_Batch]:
    for start in range(0, len(inputs.uris), AT_ONCE):
        inputs.progress(STAGE, start, len(inputs.uris))
        yield _read(inputs, inputs.uris[start : start + AT_ONCE], backbones)
    inputs.progress(STAGE, len(inputs.uris), len(inputs.uris))


def _read(inputs: Inputs, uris: Sequence[str], backbones: Sequence[Backbone]) -> _Batch:
    assert inputs.load is not None
    squares: dict[str, list[Pixels]] = {}
    problems: dict[str, str] = {}
    for uri in uris:
        try:
            data = inputs.load(uri)
            squares[uri] = [plain(data, backbone) for backbone in backbones]
        except ImageUnreadableError as error:
            problems[uri] = str(error)
    stacked = tuple(np.stack(column) for column in zip(*squares.values(), strict=True))
    return _Batch(tuple(squares), stacked, problems)


def _answer(
    inputs: Inputs,
    backbone: Backbone,
    uris: Sequence[str],
    squares: Pixels,
    found: Sequence[dict[Disturbance | None, list[Floats]]],
) -> None:
    """Features once for all arms on this backbone; None stands for the clean copy."""
    mine = [k for k, arm in enumerate(inputs.arms) if arm.backbone and arm.backbone.record.id == backbone.record.id]
    for what in (None, *DISTURBANCES):
        copies = disturb(squares, uris, what, inputs.seed) if what else squares
        features = backbone.features(as_seen(copies, backbone))
        for k in mine:
            found[k].setdefault(what, []).append(inputs.arms[k].head.probabilities(features))


def _joined(arm: Arm, rows: Mapping[Disturbance | None, Sequence[Floats]], classes: Sequence[str]) -> Answers:
    if not rows:
        return Answers()
    joined = {what: arm.aligned(np.concatenate(parts), classes) for what, parts in rows.items()}
    clean = joined.pop(None)
    return Answers(clean, {what: found for what, found in joined.items() if what})
