"""A version and what it was judged on in, its evaluation report out: looked at once, kept beside the versions.

A retrain looks at the pixels before the gate does, for robustness is evidence. The report of a refresh is made when
somebody asks for it, from kept features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from labelloop.errors import NotFoundError
from labelloop.records import Bucket, Comparison, Example, Outcome, Verdict
from labelloop.registry import Version
from labelloop.reports import Kept, keep_report
from labelloop.snapshot import Snapshot
from retrain_worker.artefact import Served
from retrain_worker.context import ProjectContext
from retrain_worker.evidence import one_per_group
from retrain_worker.examples import examples_of
from retrain_worker.intervals import mean_interval
from retrain_worker.report.answers import Answers, Looked, Seen, look
from retrain_worker.report.inputs import Arm, Inputs, Origin, Progress, classes_of
from retrain_worker.report.measures import predicted
from retrain_worker.report.report import Report, make_report

UNDECIDED = Verdict(Outcome.HOLD, ())


@dataclass(frozen=True, slots=True)
class Sight:
    """What both arms said of every test image, clean and disturbed."""

    inputs: Inputs
    looked: Looked
    seen: Seen = field(default_factory=Seen)  # what the backbones make of these images, whatever heads follow

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
    return _sight(project, snapshot, challenger, champion, progress, Seen())


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
    return _sight(project, snapshot, challenger, champion, progress, before.seen)


def _sight(
    project: ProjectContext,
    snapshot: Snapshot,
    challenger: Served,
    champion: Served | None,
    progress: Progress,
    seen: Seen,
) -> Sight:
    features = project.features(challenger.backbone.record.id)
    kept, _ = one_per_group([e for e in examples_of(snapshot, project.catalogue, features) if e.bucket is Bucket.TEST])
    config = project.record.config
    given = Inputs(
        origin=_origin(project, snapshot), verdict=UNDECIDED, classes=challenger.head.labels,
        challenger=_arm(project, "challenger", challenger),
        champion=_arm(project, "champion", champion) if champion else None,
        uris=tuple(e.uri for e in kept.values()), labels=tuple(e.label for e in kept.values()),
        load=lambda uri: project.images.read(uri)[0], seed=config.seed, progress=progress,
    )  # fmt: skip
    return Sight(given, look(given, classes_of(given), seen), seen)


def report_of_run(
    project: ProjectContext, sight: Sight, version: Version, champion: Version | None, history: Mapping[str, Any]
) -> Report:
    """What was seen, with what became of it; kept."""
    given = sight.inputs
    named = replace(
        given, origin=_origin_of(project, version), verdict=version.verdict, history=history,
        challenger=replace(given.challenger, name=version.name),
        champion=replace(given.champion, name=champion.name) if given.champion and champion else None,
    )  # fmt: skip
    return _kept(project, version, make_report(named, sight.looked))


def report_of_version(project: ProjectContext, version: Version) -> Report:
    """From kept features of the test images, the labels of its snapshot and the version that was live before it."""
    features = project.features(version.backbone)
    snapshot = project.snapshot(version.snapshot)
    kept, _ = one_per_group([e for e in examples_of(snapshot, project.catalogue, features) if e.bucket is Bucket.TEST])
    before = _parent(project, version)
    if before:
        known = project.features(before.backbone)
        kept = {group: e for group, e in kept.items() if e.uri in known}
    examples = list(kept.values())
    given = Inputs(
        origin=_origin_of(project, version), verdict=version.verdict, classes=version.labels,
        challenger=_from_features(project, version, examples),
        champion=_from_features(project, before, examples) if before else None,
        uris=tuple(e.uri for e in examples), labels=tuple(e.label for e in examples), seed=project.record.config.seed,
    )  # fmt: skip
    return _kept(project, version, make_report(given))


def disturbed_comparison(inputs: Inputs, looked: Looked) -> Comparison | None:
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


def _right(answers: Answers, truth: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(n,) share of an image's disturbed copies that are answered rightly."""
    right = np.stack([predicted(found) == truth for found in answers.disturbed.values()])
    return np.asarray(right.mean(axis=0), dtype=np.float64)


def _arm(project: ProjectContext, name: str, served: Served) -> Arm:
    return Arm(name, served.head, served.backbone, rules=project.rules)


def _from_features(project: ProjectContext, version: Version, examples: Sequence[Example]) -> Arm:
    head = project.registry.head(version)
    rows = project.features(version.backbone).rows([e.uri for e in examples])
    return Arm(version.name, head, probabilities=head.probabilities(rows), rules=project.rules)


def _parent(project: ProjectContext, version: Version) -> Version | None:
    """None where it has been tidied away meanwhile, too."""
    try:
        return project.registry.version(version.parent) if version.parent else None
    except NotFoundError:
        return None


def _origin(project: ProjectContext, snapshot: Snapshot) -> Origin:
    return Origin(project.record.title, "", "retrain", "", snapshot.id, project.record.config.hash, "")


def _origin_of(project: ProjectContext, version: Version) -> Origin:
    return Origin(
        project.record.title, version.name, version.kind, version.created_at, version.snapshot, version.config,
        version.code,
    )  # fmt: skip


def _kept(project: ProjectContext, version: Version, report: Report) -> Report:
    keep_report(project.store, version.name, Kept(report.json, report.html))
    return report
