"""A version and what it was judged on in, its evaluation report out: looked at once, kept beside the versions.

A retrain looks at the pixels before the gate does, for robustness is evidence. The report of a refresh is made when
somebody asks for it, from features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from labelloop.errors import NotFoundError
from labelloop.records.arrays import Floats
from labelloop.records.evidence import Comparison, Outcome, Verdict
from labelloop.records.images import Example, Split
from labelloop.records.snapshots import Snapshot
from labelloop.records.versions import Version
from labelloop.rules.paired_intervals import mean_interval
from labelloop.store.reports import KeptReport, keep_report, kept_report
from retrain_worker.context import Context, ProjectContext
from retrain_worker.evidence.artefact import Served
from retrain_worker.evidence.collect import one_per_unit
from retrain_worker.evidence.examples import examples_of
from retrain_worker.evidence.rows import rows_under
from retrain_worker.report.answers import ArmAnswers, CopyFeatures, PixelAnswers, look
from retrain_worker.report.inputs import Arm, Inputs, Progress, RunOrigin, classes_of
from retrain_worker.report.measures import predicted
from retrain_worker.report.report import Report, make_report

UNDECIDED = Verdict(Outcome.HOLD, ())


@dataclass(frozen=True, slots=True)
class Sight:
    """What both arms said of every test image, clean and disturbed."""

    inputs: Inputs
    looked: PixelAnswers
    features: CopyFeatures = field(
        default_factory=CopyFeatures
    )  # what the backbones make of these images, whatever heads follow

    @property
    def robustness(self) -> Comparison | None:
        """Challenger beside champion on disturbed copies; None without champion or readable images."""
        return disturbed_comparison(self.inputs, self.looked)


def look_at(
    project: ProjectContext,
    snapshot: Snapshot,
    *,
    challenger: Served,
    champion: Served | None,
    progress: Progress,
) -> Sight:
    """Every test image of the snapshot, past both arms as they would serve."""
    return _sight(project, snapshot, challenger, champion, progress, CopyFeatures())


def look_again(
    project: ProjectContext,
    snapshot: Snapshot,
    *,
    challenger: Served,
    champion: Served | None,
    progress: Progress,
    before: Sight,
) -> Sight:
    """The same with other heads or labels: an image that a backbone has seen is not read again for it."""
    return _sight(project, snapshot, challenger, champion, progress, before.features)


def _sight(
    project: ProjectContext,
    snapshot: Snapshot,
    challenger: Served,
    champion: Served | None,
    progress: Progress,
    features: CopyFeatures,
) -> Sight:
    kept_features = project.features(challenger.backbone.record.id)
    kept, _ = one_per_unit(
        [e for e in examples_of(snapshot, project.catalogue, kept_features) if e.bucket is Split.TEST]
    )
    config = project.record.config
    inputs = Inputs(
        origin=_origin(project, snapshot), verdict=UNDECIDED, classes=challenger.head.labels,
        challenger=_arm(project, "challenger", challenger),
        champion=_arm(project, "champion", champion) if champion else None,
        uris=tuple(e.uri for e in kept.values()), labels=tuple(e.label for e in kept.values()),
        load=lambda uri: project.images.read(uri)[0], seed=config.seed, progress=progress,
    )  # fmt: skip
    return Sight(inputs, look(inputs, classes_of(inputs), features), features)


def report_of_run(
    project: ProjectContext, sight: Sight, version: Version, champion: Version | None, history: Mapping[str, Any]
) -> Report:
    """What was seen, with what became of it; kept."""
    inputs = sight.inputs
    named = replace(
        inputs, origin=_origin_of(project, version), verdict=version.verdict, history=history,
        challenger=replace(inputs.challenger, name=version.name),
        champion=replace(inputs.champion, name=champion.name) if inputs.champion and champion else None,
    )  # fmt: skip
    return _kept(project, version, make_report(named, sight.looked))


def report_of_version(context: Context, project: ProjectContext, version: Version) -> Report:
    """From features of the test images, the labels of its snapshot and the version that was live before it.

    NotFoundError where it was judged on images of which neither features nor pixels can be had any more.
    """
    examples = judged_on(project, version, Split.TEST)
    ours = rows_under(context, project, version.backbone, [e.uri for e in examples])
    readable = [e for e in examples if e.uri in ours.places]
    before = parent_of(project, version)
    theirs = rows_under(context, project, before.backbone, [e.uri for e in readable]) if before else None
    both = [e for e in readable if theirs is None or e.uri in theirs.places]
    if examples and not both:
        raise NotFoundError(
            f"none of the {len(examples)} test images of {version.name} can be read, and their features are no longer "
            "kept: bring the images back, or look at a newer version"
        )
    uris = tuple(e.uri for e in both)
    inputs = Inputs(
        origin=_origin_of(project, version), verdict=version.verdict, classes=version.labels,
        challenger=_from_features(project, version, ours.of(uris)),
        champion=_from_features(project, before, theirs.of(uris)) if before and theirs else None,
        uris=uris, labels=tuple(e.label for e in both), seed=project.record.config.seed,
    )  # fmt: skip
    return _kept(project, version, make_report(inputs))


def judged_on(project: ProjectContext, version: Version, split: Split) -> list[Example]:
    """The labelled images of its snapshot in one split, one of each duplicate group; features or none."""
    project.catalogue.update()
    examples = examples_of(project.snapshot(version.snapshot), project.catalogue, project.catalogue.images)
    return list(one_per_unit([e for e in examples if e.bucket is split])[0].values())


def disturbed_comparison(inputs: Inputs, looked: PixelAnswers) -> Comparison | None:
    """Each image counts once, with the mean over all its disturbed copies."""
    if len(looked.arms) < 2 or not looked.readable.any():
        return None
    classes = classes_of(inputs)
    truth = np.array([classes.index(label) for label in inputs.labels])[looked.readable]
    ours, theirs = (_right(answers, truth) for answers in looked.arms)
    difference = ours - theirs
    low, high = mean_interval(difference)
    return Comparison(
        "test images with noise and blur", len(truth), float(theirs.mean()), float(ours.mean()),
        float(difference.mean()), low, high, int((difference != 0).sum()),
    )  # fmt: skip


def _right(answers: ArmAnswers, truth: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(n,) share of an image's disturbed copies that are answered rightly."""
    right = np.stack([predicted(probabilities) == truth for probabilities in answers.disturbed.values()])
    return np.asarray(right.mean(axis=0), dtype=np.float64)


def _arm(project: ProjectContext, name: str, served: Served) -> Arm:
    return Arm(name, served.head, served.backbone, rules=project.rules)


def _from_features(project: ProjectContext, version: Version, rows: Floats) -> Arm:
    head = project.registry.head(version)
    probabilities = head.probabilities(rows) if len(rows) else np.zeros((0, len(head.labels)), dtype=np.float32)
    return Arm(version.name, head, probabilities=probabilities, rules=project.rules)


def parent_of(project: ProjectContext, version: Version) -> Version | None:
    """None where it has been tidied away meanwhile, too."""
    try:
        return project.registry.version(version.parent) if version.parent else None
    except NotFoundError:
        return None


def _origin(project: ProjectContext, snapshot: Snapshot) -> RunOrigin:
    return RunOrigin(project.record.title, "", "retrain", "", snapshot.id, project.record.config.hash, "")


def _origin_of(project: ProjectContext, version: Version) -> RunOrigin:
    return RunOrigin(
        project.record.title, version.name, version.kind, version.created_at, version.snapshot, version.config,
        version.code,
    )  # fmt: skip


def _kept(project: ProjectContext, version: Version, report: Report) -> Report:
    """Beside the version, but never in place of one that had seen pixels: of a retrain only its run looks at them."""
    before = kept_report(project.store, version.name)
    if before is None or report.json["challenger"]["robustness"] or not before.json["challenger"]["robustness"]:
        keep_report(project.store, version.name, KeptReport(report.json, report.html))
    return report
