"""A fine-tuned backbone, features of the whole pool under it, and a head on the newest labels."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeGuard

import structlog

from labelloop.code import training_code
from labelloop.errors import CancelledError, ConflictError, MissingExtraError, NotEnoughLabelsError, PausedError
from labelloop.model import net
from labelloop.model.classifier import Classifier
from labelloop.model.head import Head
from labelloop.model.net import Backbone
from labelloop.queue.progress import JobProgress
from labelloop.records.evidence import Outcome
from labelloop.records.images import Example, Split
from labelloop.records.snapshots import Snapshot
from labelloop.records.versions import BackboneRecord, Version
from labelloop.rules.gate import judge
from labelloop.store.registry import Draft
from labelloop.store.runs import Claim
from retrain_worker.context import Context, ProjectContext
from retrain_worker.evidence.artefact import Served, Tried, served, served_champion, to_try, try_out
from retrain_worker.evidence.collect import LabelSets, Learned, Recipe, Side, retrain_evidence
from retrain_worker.evidence.examples import examples_of, train_groups, without_features
from retrain_worker.featurise import featurise_under
from retrain_worker.heads.logistic import fit_head, rotate
from retrain_worker.heads.recipe import HeadRecipe
from retrain_worker.opponent import instead_words, opponent_of
from retrain_worker.refresh import RunResult, deploy, draft_of, held, learned_by, told
from retrain_worker.reporting import Sight, look_again, look_at, report_of_run
from retrain_worker.tracking import TrackedResult, TrackedRun, Tracking, flat, tracking
from retrain_worker.training.checkpoint import StoredKeeper
from retrain_worker.training.data import PixelSource, parts_of
from retrain_worker.training.distributed import Launch, fit_on_all, processes_for
from retrain_worker.training.fit import FineTune, FineTuneHistory, fit
from retrain_worker.training.parts import Parts, divide
from retrain_worker.training.pixel_cache import PixelCache
from retrain_worker.training.warm import warm_head

SHARD = 512  # images per feature shard: a killed run repeats one shard at most
DEPLOY_TRIES = 20  # each as quick as a refresh: who is overtaken so often has lost seconds, not the fine-tune

log = structlog.get_logger()


def retrain(context: Context, project: ProjectContext, snapshot_id: str, claim: Claim | None = None) -> RunResult:
    """Fine-tune on ``snapshot_id``; judge and deploy on the newest snapshot there is at the end.

    The version is registered whatever the verdict, so that a person can promote one that is held.
    """
    progress = JobProgress.of_job(require_wanted=claim.check if claim else None)
    snapshot = project.snapshot(snapshot_id)
    followed = tracking(context.settings, _tracked(project, snapshot))
    trained = replace(_tuned(context, project, snapshot, progress, followed), claim=claim)
    try:
        judged, entered = _taken_in(context, project, trained, progress)
    except CancelledError:
        trained.keeper.clear()  # nobody will go on from here
        raise

    def afterwards() -> None:
        trained.keeper.clear()  # not before: who is killed without a verdict need not learn it all again
        page = _report(project, entered, trained.history)
        followed.end(TrackedResult(entered.version.name, judged.evaluation, judged.verdict, page))

    return replace(judged, afterwards=afterwards)


def _taken_in(
    context: Context, project: ProjectContext, trained: Trained, progress: JobProgress
) -> tuple[RunResult, Entered]:
    """Features of the pool, a head, a verdict and what follows from it.

    People go on labelling: whenever a refresh was deployed meanwhile, the head is fitted and judged again against
    that one. What the pixels said stays, so that this takes less time than there is between two refreshes.
    """
    looks: Looks | None = None
    for attempt in range(1, DEPLOY_TRIES + 1):
        _featurise_pool(context, project, trained.backbone, progress)
        progress.report("fit and judge the head on the newest labels")
        candidate = _candidate(project, trained, looks, progress)
        looks = candidate.looks
        try:
            return _entered(context, project, trained, candidate)
        except ConflictError as conflict:
            log.info("overtaken", action="retrain", attempt=attempt, reason=str(conflict))
            if attempt == DEPLOY_TRIES:
                raise
    raise AssertionError("unreachable")


def _entered(
    context: Context, project: ProjectContext, trained: Trained, candidate: Candidate
) -> tuple[RunResult, Entered]:
    """Registered, and live where the verdict says so; ConflictError: neither."""
    draft = candidate.draft
    judged = RunResult(draft.verdict, draft.evaluation, training=trained.history.to_json())
    if trained.claim:
        trained.claim.check()
    if draft.verdict.outcome is not Outcome.PROMOTE:
        version = project.registry.add(draft)
    else:
        _featurise_pool(context, project, trained.backbone, JobProgress())  # images that came meanwhile
        try:
            version = deploy(context, project, draft, trained.claim)
        except PausedError as pause:  # hours of work: it counts as done, and the person who ends the pause hears of it
            judged, version = held(judged, pause), project.registry.add(draft)
    return replace(judged, version=version.name), Entered(version, candidate.champion, candidate.looks.sight)


@dataclass(frozen=True, slots=True)
class Trained:
    """A fine-tune that has ended."""

    snapshot: Snapshot
    backbone: Backbone
    history: FineTuneHistory
    keeper: StoredKeeper  # of its checkpoint
    claim: Claim | None = None  # to deliver it


@dataclass(frozen=True, slots=True)
class Looks:
    """What pixels said to both backbones. It holds for any heads on them."""

    ours: Served
    theirs: Served | None
    against: str | None  # the champion's backbone
    tried: Tried | None
    sight: Sight


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version to be, judged against the champion of one moment."""

    draft: Draft
    champion: Version | None  # that it was judged against
    looks: Looks


@dataclass(frozen=True, slots=True)
class Entered:
    """A registered version, and what was seen of it."""

    version: Version
    champion: Version | None
    sight: Sight


def _tracked(project: ProjectContext, snapshot: Snapshot) -> TrackedRun:
    config = project.record.config
    parts = {"backbone": config.backbone.model_dump(mode="json"), **config.retrain.recipe, "seed": config.seed}
    return TrackedRun(project.record.title, project.record.key, snapshot.id, config.hash, flat(parts))


def _tuned(
    context: Context, project: ProjectContext, snapshot: Snapshot, progress: JobProgress, followed: Tracking
) -> Trained:
    """A backbone fine-tuned on one snapshot: a function of (snapshot, config, code, seed)."""
    config = project.record.config
    backbone = start_of(context, project)
    initial = backbone.record
    examples = train_examples(project, snapshot)
    parts = parts_of(examples, source_of(project, backbone), config.retrain, config.refresh.class_min, progress.report)
    inputs = {"snapshot": snapshot.id, "config": config.hash, "backbone": initial.id, "code": training_code()}
    keeper = StoredKeeper(project.store, inputs)
    run = FineTune(backbone, parts, config.retrain, config.seed, keeper, progress.report, on_epoch=followed.epoch)
    try:
        history = _fitted(run, _first_head(project, backbone, examples, parts) if config.retrain.warm_head else None)
    except CancelledError:
        keeper.clear()  # nobody will go on from here
        raise
    for epoch in history.epochs:  # those of other processes
        followed.epoch(epoch)
    tuned = backbone.recorded(snapshot=snapshot.id, provenance=f"{initial.id} fine-tuned on snapshot {snapshot.id}")
    project.registry.add_backbone(tuned.record, net.dump(tuned))
    log.info("fine-tuned", action="retrain", backbone=tuned.record.id, best=history.best,
             images_per_s=round(history.images_per_s, 1), waited_share=round(history.waited_share, 4))  # fmt: skip
    return Trained(snapshot, tuned, history, keeper)


def _fitted(run: FineTune, head: Head | None) -> FineTuneHistory:
    """In this process, or in one for each GPU."""
    processes = processes_for(run.policy)
    if processes == 1:
        return fit(run, head)
    with tempfile.TemporaryDirectory(prefix="labelloop-fit-") as folder:
        return fit_on_all(Launch(run, head, processes, Path(folder)))


def start_of(context: Context, project: ProjectContext) -> Backbone:
    """What is fine-tuned: the backbone the project began with, or the one that its config names by now."""
    initial, spec = project.registry.initial_backbone(), project.record.config.backbone
    if initial is None:
        raise NotEnoughLabelsError("no image has features yet: a retrain needs labelled images")
    if net.follows(initial, spec):
        return net.load(initial, context.weights(project, initial), device=net.best_device())
    settings = context.settings
    log.info("another backbone", action="backbone", backbone=spec.name, before=initial.name)
    return net.build(spec, settings.weights_dirs, offline=settings.offline, device=net.best_device())


def train_examples(project: ProjectContext, snapshot: Snapshot) -> list[Example]:
    """Images of the train split only: test and audit never train."""
    project.catalogue.update()
    features = project.features(_serving(project).id)
    examples = examples_of(snapshot, project.catalogue, features, project.record.config.weights)
    return [e for e in examples if e.bucket is Split.TRAIN]


def source_of(project: ProjectContext, backbone: Backbone) -> PixelSource:
    """Where the pixels of a run come from."""
    contents = {uri: facts.sha256 for uri, facts in project.catalogue.images.items()}
    cache = PixelCache(project.cache, backbone.record.preprocessing, backbone.square.size)
    return PixelSource(project.images, backbone, cache, contents)


def _first_head(project: ProjectContext, initial: Backbone, examples: Sequence[Example], parts: Parts) -> Head:
    """Fitted on the kept features of the train part alone, or on new ones where there are none."""
    features = project.features(initial.record.id)
    train = [e for e in divide(examples, project.record.config.retrain.validation)[0] if e.label in parts.classes]
    featurised = [e for e in train if e.uri in features]
    if len({e.label for e in featurised}) < len(parts.classes):
        return warm_head(parts, initial)
    rotated = rotate(features.rows([e.uri for e in featurised]))
    return fit_head(rotated, [e.label for e in featurised], [e.group for e in featurised], classes=parts.classes).head


def _featurise_pool(context: Context, project: ProjectContext, backbone: Backbone, progress: JobProgress) -> None:
    """Features of every usable image; shards that are there already (a killed run's) are not made again."""
    kept = project.features(_serving(project).id).index.places
    done = project.features(backbone.record.id).index.places
    missing = sorted(u for u in kept if u not in done or done[u].etag != kept[u].etag)
    for start in range(0, len(missing), SHARD):
        progress.report("features of the pool", start, len(missing))
        featurise_under(context, project, backbone, missing[start : start + SHARD], JobProgress())


def _candidate(project: ProjectContext, trained: Trained, looks: Looks | None, progress: JobProgress) -> Candidate:
    """Head on the newest snapshot, evidence against the champion of this moment. ``looks``: what was seen before."""
    record = trained.backbone.record
    newest = _newest(project) or trained.snapshot
    live = project.registry.live()
    champion = project.registry.version(live.version) if live else None
    opponent = opponent_of(project, champion)
    learned = _learn(project, record, newest, trained.snapshot, opponent)
    bout = Bout(newest, record, learned.fitted.head, opponent)
    looks = _look_again(project, bout, looks, progress) if bout.known(looks) else _look(project, bout, progress)
    features = project.features(record.id)
    tried = looks.tried.artefact(looks.ours.head, features.rows) if looks.tried else None
    evaluation = replace(learned.evaluation, artefact=tried, robustness=looks.sight.robustness)
    learned = replace(learned, evaluation=evaluation)
    lacking = without_features(newest, project.catalogue, features)
    verdict = told(judge(evaluation, project.record.config.gate), lacking)
    if champion is not opponent:
        verdict = replace(verdict, reasons=(*verdict.reasons, instead_words(champion, opponent)))
    return Candidate(draft_of(project, "retrain", newest, champion, record, learned, verdict), opponent, looks)


def _newest(project: ProjectContext) -> Snapshot | None:
    """None where it cannot be read: an hour of work is judged on the labels that it began with."""
    newest = project.snapshots.newest()
    return project.rules.read(newest) if newest else None


@dataclass(frozen=True, slots=True)
class Bout:
    """Who stands against whom, on which labels."""

    newest: Snapshot
    record: BackboneRecord
    head: Classifier
    champion: Version | None

    @property
    def against(self) -> str | None:
        """The champion's backbone."""
        return self.champion.backbone if self.champion else None

    def known(self, looks: Looks | None) -> TypeGuard[Looks]:
        """Whether these backbones have been looked at, one beside the other."""
        return looks is not None and looks.against == self.against


def _look(project: ProjectContext, bout: Bout, progress: JobProgress) -> Looks:
    """Both as they would serve, past bytes and test images: minutes."""
    ours, theirs = served(project, bout.record, bout.head), served_champion(project, bout.champion)
    tried = try_out(project, ours, theirs, to_try(project, bout.newest, bout.record.id))
    sight = look_at(project, bout.newest, challenger=ours, champion=theirs, progress=progress.report)
    return Looks(ours, theirs, bout.against, tried, sight)


def _look_again(project: ProjectContext, bout: Bout, before: Looks, progress: JobProgress) -> Looks:
    """The same backbones under other heads: only images that were labelled since are read."""
    ours = served(project, bout.record, bout.head, before.ours.backbone)
    theirs = before.theirs and served_champion(project, bout.champion, before.theirs.backbone)
    sight = look_again(
        project, bout.newest, challenger=ours, champion=theirs, progress=progress.report, before=before.sight
    )
    return replace(before, ours=ours, theirs=theirs, sight=sight)


def _learn(
    project: ProjectContext, record: BackboneRecord, newest: Snapshot, trained_on: Snapshot, champion: Version | None
) -> Learned:
    project.catalogue.update()
    features = project.features(record.id)
    config = project.record.config
    head = HeadRecipe(config.head, config.seed)
    choosable = project.rules.choosable(project.record.schema.classes)
    recipe = Recipe(config.refresh.class_min, head, train_groups(trained_on, project.catalogue), choosable=choosable)
    grown = examples_of(newest, project.catalogue, features, config.weights)
    side = None
    before: Sequence[Example] | None = None
    if champion:
        old = project.features(champion.backbone)
        side = Side(project.registry.head(champion), old.rows, project.rules)
        grown = [e for e in grown if e.uri in old]
        before = learned_by(project, champion, newest, features)
    return retrain_evidence(LabelSets(grown, champion=before), features.rows, champion=side, recipe=recipe)


def _report(project: ProjectContext, entered: Entered, history: FineTuneHistory) -> str | None:
    """The run has ended, whatever becomes of its report: `labelloop report` can make one later."""
    try:
        return report_of_run(project, entered.sight, entered.version, entered.champion, history.to_json()).html
    except CancelledError:
        log.warning("the report was cancelled", action="report", version=entered.version.name)
    except MissingExtraError as missing:
        log.warning("no report", action="report", version=entered.version.name, reason=str(missing))
    except Exception:  # the edge of a step that nothing depends on
        log.exception("the report could not be made", action="report", version=entered.version.name)
    return None


def _serving(project: ProjectContext) -> BackboneRecord:
    record = project.registry.current_backbone()
    if record is None:
        raise NotEnoughLabelsError("no image has features yet: a retrain needs labelled images")
    return record
