"""The artefact that would serve, tried before it does: written down, loaded as the backend loads it, fed with bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import CorruptArtefactError, ImageUnreadableError, NotFoundError
from labelloop.model import net
from labelloop.model.classifier import Classifier, load_classifier
from labelloop.model.net import Backbone
from labelloop.records.arrays import Floats
from labelloop.records.evidence import Artefact
from labelloop.records.images import Split
from labelloop.records.snapshots import Snapshot
from labelloop.records.versions import BackboneRecord, Version
from retrain_worker.context import ProjectContext
from retrain_worker.evidence.examples import examples_of

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


def served(project: ProjectContext, record: BackboneRecord, head: Classifier, loaded: Backbone | None = None) -> Served:
    """Loaded from what is kept; nothing of the run that made it is used. CorruptArtefactError, NotFoundError.

    ``loaded``: the same backbone, if it was loaded so before.
    """
    return Served(loaded or _loaded(project, record), load_classifier(head.dump(), head.labels))


def _loaded(project: ProjectContext, record: BackboneRecord) -> Backbone:
    backbone = net.load(record, project.registry.backbone_weights(record), device=net.best_device())
    net.verify(backbone)
    return backbone


def served_champion(project: ProjectContext, version: Version | None, loaded: Backbone | None = None) -> Served | None:
    """The champion in the same way; None where there is none or it is damaged."""
    if version is None:
        return None
    try:
        return served(project, project.registry.backbone(version.backbone), project.registry.head(version), loaded)
    except (CorruptArtefactError, NotFoundError):
        return None


def tried_out(project: ProjectContext, ours: Served, theirs: Served | None, snapshot: Snapshot) -> Artefact | None:
    """What the artefact that would serve does with bytes; None where no image can be read."""
    tried = try_out(project, ours, theirs, to_try(project, snapshot, ours.backbone.record.id))
    return tried.artefact(ours.head, project.features(ours.backbone.record.id).rows) if tried else None


def to_try(project: ProjectContext, snapshot: Snapshot, backbone: str) -> list[str]:
    """Labelled images with features, those of the test split first."""
    examples = examples_of(snapshot, project.catalogue, project.features(backbone))
    return [e.uri for e in sorted(examples, key=lambda e: e.bucket is not Split.TEST)]


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of bytes in the backbone that would serve; heads may change."""

    uris: tuple[str, ...]
    features: Floats  # (images, dimension) of these bytes, as the backend would make them
    ms: float
    champion_ms: float | None

    def artefact(self, head: Classifier, rows: Callable[[Sequence[str]], Floats]) -> Artefact:
        """``head``: as it would serve; ``rows``: uris to the kept features that its verdict rests on."""
        difference = np.abs(head.probabilities(self.features) - head.probabilities(rows(self.uris)))
        return Artefact(len(self.uris), float(difference.max()), self.ms, self.champion_ms)


def try_out(project: ProjectContext, challenger: Served, champion: Served | None, uris: Sequence[str]) -> Tried | None:
    """On the first of these images that can be read; None where none can."""
    images = _images(project, uris)
    if not images:
        return None
    features = challenger.backbone.features(np.stack([challenger.backbone.decode(data) for data in images.values()]))
    first = next(iter(images.values()))
    sides = [challenger] if champion is None else [challenger, champion]
    for side in sides:
        side.backbone.quicken()  # as it would serve
    spent = in_turn([_one_image(side, first) for side in sides])
    says = champion is not None and challenger.backbone.device.type == "cpu"  # as backends have it; a GPU tells nothing
    return Tried(tuple(images), features, spent[0], spent[1] if says else None)


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


def _images(project: ProjectContext, uris: Sequence[str]) -> dict[str, bytes]:
    """The bytes of the first images that can be read."""
    images: dict[str, bytes] = {}
    for uri in uris:
        with suppress(ImageUnreadableError):
            images[uri] = project.images.read(uri)[0]
        if len(images) == IMAGES:
            break
    return images
