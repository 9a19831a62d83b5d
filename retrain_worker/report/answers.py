"""Test images in, what each arm says of them out: clean and disturbed, read once, a few in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from labelloop.decoding import pixel_steps
from labelloop.decoding.square import Pixels, decode
from labelloop.errors import ImageUnreadableError
from labelloop.records.arrays import Floats
from retrain_worker.report.inputs import Arm, Inputs
from retrain_worker.report.robustness import DISTURBANCES, Disturbance, disturb

if TYPE_CHECKING:
    from labelloop.model.net import Backbone

AT_ONCE = 32  # images in memory
STAGE = "test images, clean and disturbed"
COPIES: tuple[Disturbance | None, ...] = (None, *DISTURBANCES)  # None: the clean one


@dataclass(frozen=True, slots=True)
class ArmAnswers:
    """Of one arm: (readable images, classes) each. Empty for an arm whose backbone is not there."""

    clean: Floats | None = None
    disturbed: Mapping[Disturbance, Floats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PixelAnswers:
    """What came of looking at the pixels."""

    readable: NDArray[np.bool_]  # (test images,); all where nobody looked
    problems: Mapping[str, str]  # uri -> why it was left out
    arms: tuple[ArmAnswers, ...]


class CopyFeatures:
    """What backbones make of images, clean and disturbed: an image goes past a backbone once, whatever heads follow.

    (copies, dimension) float32 of each image and backbone, in memory: 57 kB where a backbone has 2048 features.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Floats] = {}

    def add(self, backbone: Backbone, uri: str, rows: Floats) -> None:
        """``rows``: one for each of COPIES."""
        self._rows[backbone.record.id, uri] = rows

    def knows(self, backbone: Backbone, uri: str) -> bool:
        """Whether this image went past this backbone."""
        return (backbone.record.id, uri) in self._rows

    def rows(self, backbone: Backbone, uris: Sequence[str], copy: int) -> Floats:
        """(n, dimension) of the copy at this place of COPIES; KeyError where one was not seen."""
        return np.stack([self._rows[backbone.record.id, uri][copy] for uri in uris])


@dataclass(frozen=True, slots=True)
class _Batch:
    uris: tuple[str, ...]  # readable ones
    squares: tuple[Pixels, ...]  # one (k, 3, size, size) per backbone, before its steps
    problems: Mapping[str, str]


def look(inputs: Inputs, classes: Sequence[str], features: CopyFeatures | None = None) -> PixelAnswers:
    """Every test image past every backbone, if there are pixels; what ``load`` raises otherwise goes through.

    ``features``: what need not be computed again; what is new is added to it.
    """
    backbones = list({a.backbone.record.id: a.backbone for a in inputs.arms if a.backbone}.values())
    if inputs.load is None or not backbones or not inputs.uris:
        return PixelAnswers(np.ones(len(inputs.uris), dtype=np.bool_), {}, tuple(ArmAnswers() for _ in inputs.arms))
    features = features or CopyFeatures()
    problems = _see(inputs, backbones, features)
    readable = [uri for uri in inputs.uris if uri not in problems]
    arms = tuple(_answers(arm, readable, classes, features) for arm in inputs.arms)
    return PixelAnswers(np.array([uri not in problems for uri in inputs.uris], dtype=np.bool_), problems, arms)


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


def _see(inputs: Inputs, backbones: Sequence[Backbone], features: CopyFeatures) -> dict[str, str]:
    """Add what is missing; uri -> why an image cannot be read."""
    problems: dict[str, str] = {}
    missing = [uri for uri in inputs.uris if not all(features.knows(b, uri) for b in backbones)]
    for start in range(0, len(missing), AT_ONCE):
        inputs.progress(STAGE, start, len(missing))
        batch = _read(inputs, missing[start : start + AT_ONCE], backbones)
        problems.update(batch.problems)
        for backbone, squares in zip(backbones, batch.squares, strict=False):  # none where all were unreadable
            if not all(features.knows(backbone, uri) for uri in batch.uris):
                _pass(inputs, backbone, batch.uris, squares, features)
    inputs.progress(STAGE, len(missing), len(missing))
    return problems


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


def _pass(inputs: Inputs, backbone: Backbone, uris: Sequence[str], squares: Pixels, features: CopyFeatures) -> None:
    """Features of all copies of a few images."""
    copies = (disturb(squares, uris, what, inputs.seed) if what else squares for what in COPIES)
    rows_of_copies = np.stack([backbone.features(as_seen(images, backbone)) for images in copies], axis=1)
    for uri, rows in zip(uris, rows_of_copies, strict=True):
        features.add(backbone, uri, rows)


def _answers(arm: Arm, uris: Sequence[str], classes: Sequence[str], features: CopyFeatures) -> ArmAnswers:
    """(n, classes) of every copy; nothing for an arm whose backbone is not there, or without images."""
    if arm.backbone is None or not uris:
        return ArmAnswers()
    rows = [features.rows(arm.backbone, uris, copy) for copy in range(len(COPIES))]
    clean, *disturbed = (arm.aligned(arm.head.probabilities(copy_rows), classes) for copy_rows in rows)
    return ArmAnswers(clean, dict(zip(DISTURBANCES, disturbed, strict=True)))
