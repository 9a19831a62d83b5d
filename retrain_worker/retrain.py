"""A fine-tuned backbone, features of the whole pool under it, and a head on the newest labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import structlog

from labelloop import net
from labelloop.errors import ConflictError, ImageUnreadableError, NotEnoughLabelsError, PausedError
from labelloop.gate import judge
from labelloop.net import Backbone
from labelloop.queue import Progress
from labelloop.records import Bucket, Example, Outcome
from labelloop.registry import BackboneRecord, Version
from labelloop.snapshot import Snapshot
from retrain_worker.context import Context, ProjectContext
from retrain_worker.evidence import LabelSets, Learned, Recipe, Side, entering, one_per_group, retrain_evidence
from retrain_worker.examples import examples_of, train_groups
from retrain_worker.featurise import featurise_under
from retrain_worker.finetune import TrainSet, finetune
from retrain_worker.refresh import DEPLOY_TRIES, Judged, deploy, draft_of, held

SHARD = 512  # images per feature shard: a killed run repeats one shard at most

log = structlog.get_logger()


def retrain(context: Context, project: ProjectContext, snapshot_id: str) -> Judged:
    """Fine-tune on ``snapshot_id``; judge and deploy on the newest snapshot there is at the end.

    The version is registered whatever the verdict, so that a person can promote one that is held.
    """
    progress = Progress.of_job()
    snapshot = project.snapshot(snapshot_id)
    backbone = _tuned(project, snapshot, progress)
    _featurise_pool(context, project, backbone, progress)
    for attempt in range(1, DEPLOY_TRIES + 1):
        progress.report("fit and judge the head on the newest labels")
        judged, version = _judged(project, backbone.record, snapshot)
        if judged.verdict.outcome is not Outcome.PROMOTE:
            return judged
        _featurise_pool(context, project, backbone, progress)  # images that came meanwhile
        try:
            deploy(context, project, version, judged.verdict)
            return judged
        except PausedError as pause:  # hours of work: it counts as done, and whoever ends the pause hears of it
            return held(judged, pause)
        except ConflictError:  # a refresh was deployed meanwhile: judge against that one
            if attempt == DEPLOY_TRIES:
                raise
    raise AssertionError("unreachable")


def _tuned(project: ProjectContext, snapshot: Snapshot, progress: Progress) -> Backbone:
    """The initial backbone fine-tuned on one snapshot: a function of (snapshot, config, seed)."""
    initial = project.registry.initial_backbone()
    if initial is None:
        raise NotEnoughLabelsError("no image has features yet: a retrain needs labelled images")
    backbone = net.load(initial, project.registry.backbone_weights(initial), device=net.best_device())
    data = _train_set(project, snapshot, backbone, progress)
    policy = project.record.config.retrain
    losses = finetune(
        backbone, data, policy, seed=project.record.config.seed,
        report=lambda step, steps: progress.report(f"fine-tune on {len(data.targets)} labels", step, steps),
    )  # fmt: skip
    tuned = backbone.recorded(snapshot=snapshot.id, provenance=f"{initial.id} fine-tuned on snapshot {snapshot.id}")
    project.registry.add_backbone(tuned.record, net.dump(tuned))
    log.info("fine-tuned", action="retrain", backbone=tuned.record.id, losses=[round(x, 4) for x in losses])
    return tuned


def _train_set(project: ProjectContext, snapshot: Snapshot, backbone: Backbone, progress: Progress) -> TrainSet:
    """Train-bucket images only: test and audit never train."""
    project.catalogue.update()
    features = project.features(_serving(project).id)
    found = [e for e in examples_of(snapshot, project.catalogue, features) if e.bucket is Bucket.TRAIN]
    agreed = list(one_per_group(found)[0].values())
    classes, _ = entering([e.label for e in agreed], project.record.config.refresh.class_min)
    if len(classes) < 2:
        raise NotEnoughLabelsError("a retrain needs two classes with enough labels each")
    images, targets = [], []
    for i, example in enumerate(agreed):
        progress.report("read the labelled images", i, len(agreed))
        pixels = _pixels(project, backbone, example)
        if example.label in classes and pixels is not None:
            images.append(pixels)
            targets.append(classes.index(example.label))
    return TrainSet(np.stack(images), np.array(targets, dtype=np.int64), len(classes))


def _pixels(
    project: ProjectContext, backbone: Backbone, example: Example
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None:
    try:
        return backbone.decode(project.images.read(example.uri)[0])
    except ImageUnreadableError as error:
        log.warning("image left out", action="retrain", uri=example.uri, reason=str(error))
        return None


def _featurise_pool(context: Context, project: ProjectContext, backbone: Backbone, progress: Progress) -> None:
    """Features of every usable image; shards that are there already (a killed run's) are not made again."""
    kept = project.features(_serving(project).id).index.places
    done = project.features(backbone.record.id).index.places
    missing = sorted(u for u in kept if u not in done or done[u].etag != kept[u].etag)
    for start in range(0, len(missing), SHARD):
        progress.report("features of the pool", start, len(missing))
        featurise_under(context, project, backbone, missing[start : start + SHARD], Progress())


def _judged(project: ProjectContext, record: BackboneRecord, trained_on: Snapshot) -> tuple[Judged, Version]:
    """Head on the newest snapshot, evidence against the champion of this moment, a registered version."""
    latest = project.snapshots.latest()
    newest = project.snapshot(latest.snapshot) if latest else trained_on
    live = project.registry.live()
    champion = project.registry.version(live.version) if live else None
    learned = _learn(project, record, newest, trained_on, champion)
    verdict = judge(learned.evaluation, project.record.config.gate)
    version = project.registry.add(draft_of(project, "retrain", newest, champion, record, learned, verdict))
    return Judged(verdict, learned.evaluation, version.name), version


def _learn(
    project: ProjectContext, record: BackboneRecord, newest: Snapshot, trained_on: Snapshot, champion: Version | None
) -> Learned:
    project.catalogue.update()
    features = project.features(record.id)
    config = project.record.config
    recipe = Recipe(config.refresh.class_min, None, train_groups(trained_on, project.catalogue))
    grown = examples_of(newest, project.catalogue, features)
    side = None
    before: Sequence[Example] | None = None
    if champion:
        old = project.features(champion.backbone)
        side = Side(project.registry.head(champion), old.rows, project.rules)
        grown = [e for e in grown if e.uri in old]
        before = examples_of(project.snapshot(champion.snapshot), project.catalogue, features)
    return retrain_evidence(LabelSets(grown, champion=before), features.rows, champion=side, recipe=recipe)


def _serving(project: ProjectContext) -> BackboneRecord:
    record = project.registry.current_backbone()
    if record is None:
        raise NotEnoughLabelsError("no image has features yet: a retrain needs labelled images")
    return record
