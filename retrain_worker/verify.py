"""A version in, its figures computed again from snapshot, weights and images out, beside those that were recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from labelloop.model.classifier import Classifier
from labelloop.records.evidence import Evaluation
from labelloop.records.images import Example, Split
from labelloop.records.versions import Version
from retrain_worker.context import Context, ProjectContext
from retrain_worker.evidence.answers import PairedAnswers
from retrain_worker.evidence.collect import Side, with_test_split
from retrain_worker.evidence.rows import rows_under
from retrain_worker.reporting import judged_on, parent_of

CLOSE = 1e-4  # of probabilities: another processor rounds otherwise
CLOSE_ECE = 1e-3


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, then and now. ``recorded`` None: only reported; ``found`` None: it cannot be had any more."""

    name: str
    recorded: float | None
    found: float | None
    within: float = 0.0  # the largest difference that rounding explains

    @property
    def differs(self) -> bool:
        """Whether it was recorded, and is not the same now."""
        return self.recorded is not None and (
            self.found is None or abs(self.found - self.recorded) > max(self.within, 1e-9)
        )


@dataclass(frozen=True, slots=True)
class Verified:
    """What came out for one version, and what explains a difference."""

    version: str
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether every figure is what was recorded."""
        return not any(figure.differs for figure in self.figures)


def verify(context: Context, project: ProjectContext, version: Version) -> Verified:
    """CorruptArtefactError, NotFoundError where weights, snapshot or head are damaged or gone."""
    head, recorded = project.registry.head(version), version.evaluation
    test = judged_on(project, version, Split.TEST)
    ours, readable = _side(context, project, version, test)
    before = parent_of(project, version) if recorded.test_comparison else None
    theirs, both = _side(context, project, before, readable) if before else (None, readable)
    evaluation = with_test_split(
        Evaluation(version.kind, 0, 0, head.labels), both, challenger=ours, champion=theirs, unseen=PairedAnswers.none()
    )
    figures = (_head_figure(version, head), *_test_figures(recorded, evaluation), *_audit(context, project, version))
    return Verified(version.name, figures, tuple(_notes(project, test, both)))


def _side(
    context: Context, project: ProjectContext, version: Version, examples: Sequence[Example]
) -> tuple[Side, list[Example]]:
    """A version as it served, and those images that can be had."""
    rows = rows_under(context, project, version.backbone, [e.uri for e in examples])
    side = Side(project.registry.head(version), rows.of, project.rules)
    return side, [e for e in examples if e.uri in rows.places]


def _head_figure(version: Version, head: Classifier) -> Figure:
    """The backend's own check: the probabilities that the head made of a few rows when it was registered."""
    rows, then = (np.array(x, dtype=np.float32) for x in (version.check_features, version.check_probabilities))
    apart = float(np.abs(head.probabilities(rows) - then).max()) if len(rows) else 0.0
    return Figure("head: largest difference of a probability", 0.0, apart, CLOSE)


def _test_figures(recorded: Evaluation, recomputed: Evaluation) -> Iterator[Figure]:
    yield Figure("test: labels", recorded.test_n, recomputed.test_n)
    yield Figure("test: accuracy", recorded.test_accuracy, recomputed.test_accuracy)
    if recorded.test_comparison and recorded.test_n:
        now = recomputed.test_comparison
        yield Figure(
            "test: accuracy of the version before", recorded.test_comparison.champion, now.champion if now else None
        )
    if recorded.calibration:
        error = recomputed.calibration.challenger if recomputed.calibration else None
        yield Figure("test: expected calibration error", recorded.calibration.challenger, error, CLOSE_ECE)


def _audit(context: Context, project: ProjectContext, version: Version) -> Iterator[Figure]:
    """Nothing is recorded of it, as nothing is decided by it."""
    side, readable = _side(context, project, version, judged_on(project, version, Split.AUDIT))
    right = side.answers([e.uri for e in readable]) == np.array([e.label for e in readable], dtype=np.str_)
    yield Figure("audit: labels", None, len(readable))
    yield Figure("audit: accuracy", None, float(right.mean()) if len(readable) else None)


def _notes(project: ProjectContext, test: Sequence[Example], both: Sequence[Example]) -> Iterator[str]:
    """What has changed since and may explain a difference."""
    if len(both) < len(test):
        yield f"{len(test) - len(both)} of {len(test)} test images have no features left and cannot be read"
    if project.rules.label_map:
        yield "classes were renamed, merged or dropped: old labels and answers count by the names of now"
