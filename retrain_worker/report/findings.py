"""Everything a report tells, found out and not yet written: what `report` fills in and the JSON and the page read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from labelloop.records.arrays import Floats
from labelloop.records.evidence import Comparison
from labelloop.records.versions import BackboneRecord
from retrain_worker.report.inputs import Inputs
from retrain_worker.report.latency import Serving
from retrain_worker.report.measures import Ints, Measures
from retrain_worker.report.resampling import Bounds
from retrain_worker.report.robustness import Robustness

ROUGH = 0.2  # of what is to be explained, or of one logit where that is less


@dataclass(frozen=True, slots=True)
class JudgedImages:
    """What the arms say of the test images that all of them can be judged on."""

    uris: tuple[str, ...]
    truth: Ints  # (n,) class numbers
    probabilities: tuple[Floats, ...]  # (n, classes) of each arm


@dataclass(frozen=True, slots=True)
class ArmFindings:
    """One arm's figures; None and empty where nothing could be found out."""

    name: str
    backbone: BackboneRecord | None
    measures: Measures | None
    intervals: Mapping[str, Bounds]  # figure -> 95 % bounds, of those that need resampling
    robustness: tuple[Robustness, ...]
    serving: Serving | None


@dataclass(frozen=True, slots=True)
class Compared:
    """Challenger against champion on the same images."""

    accuracy: Comparison
    gained: int  # images that only the challenger has right
    lost: int
    intervals: Mapping[str, Bounds]  # figure -> 95 % bounds of the difference


@dataclass(frozen=True, slots=True)
class Mistake:
    """A test image that the challenger answers wrongly."""

    uri: str
    truth: str
    answer: str
    probability: float  # of the answer
    given: float  # of the true class
    champion: str | None  # the champion's answer
    picture: str | None = None  # data address; None where there are no pixels


@dataclass(frozen=True, slots=True)
class Explained:
    """A test image with what its answer comes from; pictures are data addresses."""

    uri: str
    truth: str
    answer: str
    probability: float
    gained: float  # logit against that of a black image
    summed: float  # what Integrated Gradients sum up to
    picture: str
    integrated: str | None
    grad_cam: str | None

    @property
    def is_rough(self) -> bool:
        """Whether the sum misses what it should be so far that the map is not to be relied on."""
        return abs(self.summed - self.gained) > ROUGH * max(abs(self.gained), 1.0)


@dataclass(frozen=True, slots=True)
class Explanations:
    """Attributions of a few images."""

    layer: str  # whose map Grad-CAM takes; empty where there is none
    why_not: str  # why there is none
    images: tuple[Explained, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """All of it."""

    inputs: Inputs
    classes: tuple[str, ...]
    judged: int
    unreadable: Mapping[str, str]
    challenger: ArmFindings
    champion: ArmFindings | None = None
    compared: Compared | None = None
    mistakes: tuple[Mistake, ...] = ()
    wrong: int = 0  # mistakes in all
    explained: Explanations | None = None  # None: there are no pixels
    notes: tuple[str, ...] = field(default_factory=tuple)  # what a reader must know, in words
