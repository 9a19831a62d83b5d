"""The artefact that would serve, tried before it does: written down, loaded as the backend loads it, fed with bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelloop import net
from labelloop.classifier import Classifier, load_classifier
from labelloop.errors import CorruptArtefactError, ImageUnreadableError, NotFoundError
from labelloop.head import Floats
from labelloop.net import Backbone
from labelloop.records import Artefact, Bucket, Example
from labelloop.registry import BackboneRecord, Version
from labelloop.snapshot import Snapshot
from retrain_worker.context import ProjectContext
from retrain_worker.examples import examples_of

IMAGES = 32
ROUNDS = 15
WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Served:
    """A backbone and a head, as the backend would hold them."""

    backbone: Backbone
    head: Classifier

    def __call__(self, pixels: NDArray[np.uint8]) -> Floats:
        """(n, 3, size, size) uint8 to (n, classes) probabilities."""
        return self.head.probabilities(self.backbone.features(pixels))


def served(project: ProjectContext, record: BackboneRecord, head: Classifier) -> Served:
    """Loaded from what is kept; nothing of the run that made it is used. CorruptArtefactError, NotFoundError."""
    backbone = net.load(record, project.registry.backbone_weights(record), device=net.best_device())
    net.verify(backbone)
    return Served(backbone, load_classifier(head.dump(), head.labels))


def served_champion(project: ProjectContext, version: Version | None) -> Served | None:
    """The live version in the same way; None where there is none or it is damaged."""
    if version is None:
        return None
    try:
        return served(project, project.registry.backbone(version.backbone), project.registry.head(version))
    except (CorruptArtefactError, NotFoundError):
        return None


def tried_out(project: ProjectContext, ours: Served, theirs: Served | None, snapshot: Snapshot) -> Artefact | None:
    """What the artefact that would serve does on images of the test bucket; before it has any, on the others."""
    features = project.features(ours.backbone.record.id)
    examples = sorted(examples_of(snapshot, project.catalogue, features), key=lambda e: e.bucket is not Bucket.TEST)
    evaluated = ours.head.probabilities(features.rows([e.uri for e in examples]))
    return try_out(project, ours, theirs, examples, evaluated)


def try_out(
    project: ProjectContext, challenger: Served, champion: Served | None, examples: Sequence[Example], evaluated: Floats
) -> Artefact | None:
    """``evaluated``: (n, classes) probabilities of ``examples`` that the verdict rests on. None without images."""
    images, rows = _images(project, examples)
    if not images:
        return None
    pixels = np.stack([challenger.backbone.decode(data) for data in images])
    difference = float(np.abs(challenger(pixels) - evaluated[rows]).max())
    sides = [challenger] if champion is None else [challenger, champion]
    spent = in_turn([_one_image(side, images[0]) for side in sides])
    return Artefact(len(images), difference, spent[0], spent[1] if champion else None)


def in_turn(sides: Sequence[Callable[[], object]], rounds: int = ROUNDS) -> list[float]:
    """Milliseconds of each at its fastest, one after the other in every round: what else the machine does only adds.

    Medians differed by 70 % between two equal networks on a machine that was given away to others.
    """
    spent: list[list[float]] = [[] for _ in sides]
    for i in range(-WARM_UP, rounds):
        for side, run in zip(spent, sides, strict=True):
            began = time.perf_counter()
            run()
            if i >= 0:
                side.append(1000 * (time.perf_counter() - began))
    return [min(side) for side in spent]


def _one_image(side: Served, data: bytes) -> Callable[[], object]:
    pixels = side.backbone.decode(data)[None]
    return lambda: side(pixels)


def _images(project: ProjectContext, examples: Sequence[Example]) -> tuple[list[bytes], list[int]]:
    """The bytes of the first images that can be read, and which rows they are."""
    found: list[bytes] = []
    rows: list[int] = []
    for i, example in enumerate(examples):
        try:
            found.append(project.images.read(example.uri)[0])
        except ImageUnreadableError:
            continue
        rows.append(i)
        if len(found) == IMAGES:
            break
    return found, rows
