"""The versions that went live, judged on today's random labels: kept features in, the points of the curve out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import structlog

from labelloop.clock import now
from labelloop.errors import CorruptArtefactError, NotFoundError
from labelloop.model.classifier import Classifier
from labelloop.records.curve import RIGHT, UNKNOWN, WRONG, KeptCurve, Point
from labelloop.records.images import JUDGING, Example, Split
from labelloop.records.snapshots import Snapshot
from labelloop.records.tasks import Task
from labelloop.records.versions import Version, way_back
from labelloop.store.curve import keep_curve
from labelloop.store.features import FeatureStore
from labelloop.upkeep.retention import GENERATIONS
from retrain_worker.context import ProjectContext
from retrain_worker.evidence.collect import Side, one_per_unit
from retrain_worker.evidence.examples import examples_of

VERSIONS = 30  # that are judged, spread evenly over the label counts
READERS = 8

KNOWN = 3  # labels of a class, below which nobody should stop
log = structlog.get_logger()


def follow(project: ProjectContext) -> KeptCurve | None:
    """Keep the curve of this moment; None before the first version. One matrix product per version and backbone."""
    live = project.registry.live()
    latest = project.snapshots.latest()
    if live is None or latest is None:
        return None
    project.catalogue.update()
    curve = _judged(project, project.registry.version(live.version), project.snapshot(latest.snapshot))
    keep_curve(project.store, curve)
    return curve


def follow_quietly(project: ProjectContext) -> None:
    """The same at the end of a job that has done its work: nothing waits for a curve, and nothing fails for one."""
    try:
        follow(project)
    except Exception:  # the edge of a step that nothing depends on
        log.exception("the learning curve could not be kept", action="curve", project=project.record.key)


def _judged(project: ProjectContext, live: Version, snapshot: Snapshot) -> KeptCurve:
    examples = examples_of(snapshot, project.catalogue, project.features(live.backbone))
    random = list(one_per_unit([e for e in examples if e.bucket in JUDGING])[0].values())
    versions = thinned(_line(project), live)
    with ThreadPoolExecutor(READERS) as pool:
        heads = list(pool.map(lambda v: _head(project, v), versions))
    features = _features(project, versions)
    points = [
        _point(v, Side(head, features[v.backbone].rows, project.rules), random, features[v.backbone])
        for v, head in zip(versions, heads, strict=True)
        if head and v.backbone in features
    ]
    doubled, differ = twice([t for t in snapshot.tasks.values() if t.uri in {e.uri for e in random}])
    splits = Counter(e.bucket for e in random)
    return KeptCurve(
        at=now(), snapshot=snapshot.id, live=live.name, test=splits[Split.TEST], audit=splits[Split.AUDIT],
        points=tuple(points), waiting=_waiting(project, examples), left=_left(project, snapshot),
        doubled=doubled, differ=differ,
    )  # fmt: skip


def _line(project: ProjectContext) -> list[Version]:
    """What went live, without what was rolled back, as far as it is kept."""
    names = set(way_back(project.registry.deployments()))
    return [v for v in project.registry.versions() if v.name in names]


def thinned(versions: Sequence[Version], live: Version) -> list[Version]:
    """At most `VERSIONS`, fewest labels first; the champion is the last, so that the curve ends with it."""
    line = sorted((v for v in versions if v.name != live.name), key=lambda v: (v.evaluation.labels, v.number))
    line = [v for v in line if v.evaluation.labels <= live.evaluation.labels]
    if len(line) >= VERSIONS:
        labels = np.array([v.evaluation.labels for v in line])
        targets = np.linspace(labels[0], labels[-1], VERSIONS - 1)
        line = [line[i] for i in sorted({int(np.abs(labels - w).argmin()) for w in targets})]
    return [*line, live]


def _head(project: ProjectContext, version: Version) -> Classifier | None:
    """None where it is damaged or gone: one point less."""
    try:
        return project.registry.head(version)
    except (CorruptArtefactError, NotFoundError) as error:
        log.warning("a version is left out of the curve", action="curve", version=version.name, reason=str(error))
        return None


def _features(project: ProjectContext, versions: Sequence[Version]) -> dict[str, FeatureStore]:
    """By backbone, the champion's first; of those that served long ago no features are kept."""
    *others, live = versions
    newest = dict.fromkeys(v.backbone for v in (live, *sorted(others, key=lambda v: -v.number)))
    return {b: project.features(b) for b in list(newest)[:GENERATIONS]}


def _point(version: Version, side: Side, random: Sequence[Example], featurised: Container[str]) -> Point:
    examples = [e for e in random if e.uri in featurised]
    answers = side.answers([e.uri for e in examples]).tolist()
    wrong = {e.uri: RIGHT if answer == e.label else WRONG for e, answer in zip(examples, answers, strict=True)}
    return Point(
        version=version.name, kind=version.kind, labels=version.evaluation.labels, backbone=version.backbone,
        head=str(version.recipe.get("head", "linear")), at=version.created_at,
        wrong="".join(wrong.get(e.uri, UNKNOWN) for e in random),
    )  # fmt: skip


def _waiting(project: ProjectContext, examples: Sequence[Example]) -> dict[str, int]:
    """Classes that people can choose and the head hardly knows yet, for want of labels."""
    agreed, _ = one_per_unit([e for e in examples if e.bucket is Split.TRAIN])
    counts = Counter(e.label for e in agreed.values())
    record = project.record
    names = project.rules.choosable(record.schema.classes)
    least = max(KNOWN, record.config.refresh.class_min)
    return {c: counts[c] for c in names if counts[c] < least}


def _left(project: ProjectContext, snapshot: Snapshot) -> int:
    """Images of the train split that nobody has answered, nor a duplicate of them."""
    images = project.catalogue.images
    taken = {images[t.uri].unit for t in snapshot.tasks.values() if t.uri in images}
    train = {f.unit for f in images.values() if f.bucket is Split.TRAIN and f.group and not f.problem}
    return len(train - taken)


def twice(tasks: Sequence[Task]) -> tuple[int, int]:
    """(tasks that two people or more have labelled, those of them with different classes)."""
    labels_by_person: list[Mapping[int, str]] = []
    for task in tasks:
        answers = [a for a in task.annotations if a.label and not a.cancelled and a.completed_by is not None]
        answers.sort(key=lambda a: (a.updated_at, a.id))  # of one person the newest counts
        labels_by_person.append({a.completed_by: a.label for a in answers if a.completed_by is not None and a.label})
    several = [labels for labels in labels_by_person if len(labels) > 1]
    return len(several), sum(len(set(labels.values())) > 1 for labels in several)
