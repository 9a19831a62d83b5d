"""What a report is made from: the arms as they serve, test labels that no model has seen, and where the images are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from labelloop.model.classifier import Classifier
from labelloop.records.arrays import Floats
from labelloop.records.evidence import Verdict
from labelloop.rules.schema import AS_GIVEN, LabelRules

if TYPE_CHECKING:
    from labelloop.model.net import Backbone  # torch: seconds to import, and a refresh needs none of it

Progress = Callable[[str, int, int], None]  # what, steps done, steps in all; may raise to end the report
Load = Callable[[str], bytes]  # uri -> the bytes that were labelled; ImageUnreadableError where they cannot be had


def _silent(what: str, done: int, total: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One version as it serves."""

    name: str
    head: Classifier
    backbone: Backbone | None = None  # None: nothing that needs pixels is told of it
    probabilities: Floats | None = None  # (test images, head classes) from kept features; None: made from pixels
    rules: LabelRules = AS_GIVEN  # how the classes of its head are called now

    @property
    def known(self) -> tuple[str, ...]:
        """The classes it can answer with, by their names of now."""
        return self.rules.names(self.head.labels).labels

    def aligned(self, probabilities: Floats, classes: Sequence[str]) -> Floats:
        """(n, head classes) to (n, classes); 0 for a class that the head does not know."""
        names = self.rules.names(self.head.labels)
        aligned = np.zeros((len(probabilities), len(classes)), dtype=np.float32)
        aligned[:, [classes.index(label) for label in names.labels]] = names.of(probabilities)
        return aligned


@dataclass(frozen=True, slots=True)
class RunOrigin:
    """Where the run came from. Times are UTC ISO 8601."""

    project: str  # title
    run: str
    kind: str  # refresh | retrain
    created_at: str
    snapshot: str
    config: str  # ProjectConfig.hash
    code: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything. ValueError where lengths do not fit, or an arm has no way to answer."""

    origin: RunOrigin
    verdict: Verdict
    classes: tuple[str, ...]  # in the order of the pages; others that turn up come after them
    challenger: Arm
    champion: Arm | None = None
    uris: tuple[str, ...] = ()  # test images, one of each duplicate group
    labels: tuple[str, ...] = ()  # what people say they show
    load: Load | None = None
    history: Mapping[str, Any] | None = None  # `History.to_json()` of a fine-tune
    seed: int = 0
    progress: Progress = _silent
    timer: Callable[[], float] = time.perf_counter  # seconds

    def __post_init__(self) -> None:
        if len(self.uris) != len(self.labels) or len(set(self.uris)) != len(self.uris):
            raise ValueError(f"{len(self.uris)} test images and {len(self.labels)} labels: one each, no image twice")
        for arm in self.arms if self.uris else ():
            _require_answers(arm, len(self.uris), has_pixels=self.load is not None)

    @property
    def sees_pixels(self) -> bool:
        """Whether the challenger can be asked about changed images."""
        return self.load is not None and self.challenger.backbone is not None and bool(self.uris)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The challenger, then the champion where there is one."""
        return (self.challenger, self.champion) if self.champion else (self.challenger,)


def classes_of(inputs: Inputs) -> tuple[str, ...]:
    """Those asked for, then all others that a label or an arm names, sorted."""
    named = {*inputs.labels, *(name for arm in inputs.arms for name in arm.known)}
    return (*dict.fromkeys(inputs.classes), *sorted(named - set(inputs.classes)))


def _require_answers(arm: Arm, n: int, *, has_pixels: bool) -> None:
    if arm.probabilities is None:
        if arm.backbone is None or not has_pixels:
            raise ValueError(f"{arm.name} has neither probabilities nor a backbone and images to make them from")
    elif arm.probabilities.shape != (n, len(arm.head.labels)):
        raise ValueError(f"{arm.name} has probabilities of shape {arm.probabilities.shape} for {n} images")
