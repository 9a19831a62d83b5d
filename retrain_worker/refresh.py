"""The newest labels in, a judged and perhaps deployed new head out: seconds, on kept features only."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import structlog

from labelloop.code import code_version
from labelloop.errors import ConflictError, CorruptArtefactError, NotEnoughLabelsError, NotFoundError, PausedError
from labelloop.model.classifier import Classifier, load_classifier
from labelloop.objects.damage import UNREADABLE
from labelloop.queue.channels import DEPLOY_CHANNEL, publish
from labelloop.queue.progress import JobProgress
from labelloop.records.evidence import Artefact, Evaluation, Outcome, Verdict
from labelloop.records.images import Example
from labelloop.records.json import canonical
from labelloop.records.snapshots import Snapshot
from labelloop.records.tasks import Task
from labelloop.records.versions import BackboneRecord, Version
from labelloop.rules.gate import judge
from labelloop.store.configs import kept_config
from labelloop.store.features import FeatureStore
from labelloop.store.registry import Draft
from labelloop.store.runs import Claim
from retrain_worker.context import Context, ProjectContext
from retrain_worker.evidence.collect import LabelSets, Learned, Recipe, refresh_evidence
from retrain_worker.evidence.examples import examples_of, train_groups, without_features, without_words
from retrain_worker.evidence.history import unlabelled
from retrain_worker.heads.recipe import HeadRecipe, changes

CHECK_ROWS = 8  # feature rows stored with a version: the backend must get the same probabilities
DEPLOY_TRIES = 3  # a deploy that was overtaken is judged again against the new champion

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended."""

    verdict: Verdict
    evaluation: Evaluation
    version: str | None = None
    again: bool = False  # held back by a pause: the same inputs are run again when it has ended
    training: Mapping[str, Any] = field(default_factory=dict)  # how the fine-tune went, for the run record
    afterwards: Callable[[], None] = lambda: None  # what may wait until the verdict is recorded
    without: tuple[str, ...] = ()  # labelled images that had no features


def refresh(context: Context, project: ProjectContext, snapshot_id: str, claim: Claim | None = None) -> RunResult:
    """Fit, judge, register, deploy. NotEnoughLabelsError where nothing can be fitted yet."""
    progress = JobProgress.of_job()
    snapshot = project.snapshot(snapshot_id)
    for attempt in range(1, DEPLOY_TRIES + 1):
        progress.report("fit and judge the head", 0, 2)
        live = project.registry.live()
        champion = project.registry.version(live.version) if live else None
        backbone = project.registry.current_backbone()
        if backbone is None:
            raise ConflictError("the project has no backbone yet: the first image must be featurised before a refresh")
        learned, lacking = _learn(project, snapshot, champion, backbone)
        verdict = told(judge(learned.evaluation, project.record.config.gate), lacking)
        judged = RunResult(verdict, learned.evaluation, without=tuple(task.uri for task in lacking))
        if verdict.outcome is not Outcome.PROMOTE and not verdict.awaits:
            return judged
        progress.report("register and deploy", 1, 2)
        draft = draft_of(project, "refresh", snapshot, champion, backbone, learned, verdict)
        if verdict.awaits:
            if claim:
                claim.check()
            return replace(judged, version=project.registry.add(draft).name)
        try:
            return replace(judged, version=deploy(context, project, draft, claim).name)
        except PausedError as pause:
            version = project.registry.add(draft)
            return held(replace(judged, version=version.name, again=True), pause)
        except ConflictError:
            if attempt == DEPLOY_TRIES:
                raise
    raise AssertionError("unreachable")


def told(verdict: Verdict, lacking: Sequence[Task]) -> Verdict:
    """With the labelled tasks that nothing was learned from, as a reason of its own."""
    return replace(verdict, reasons=(*verdict.reasons, without_words(lacking))) if lacking else verdict


def deploy(context: Context, project: ProjectContext, draft: Draft, claim: Claim | None) -> Version:
    """Live in place of its parent, or not even registered; then tell the backends, who would find out by polling."""
    why = draft.verdict.reasons[0] if draft.verdict.reasons else ""
    version = project.registry.deploy_new(draft, by=draft.kind, why=why, claim=claim)
    publish(context.redis, DEPLOY_CHANNEL, project.record.key)
    return version


def held(judged: RunResult, pause: PausedError) -> RunResult:
    """Learning was paused while the run was under way: the version stays, and a person may promote it."""
    reasons = (f"not deployed, {pause}", *judged.verdict.reasons)
    return replace(judged, verdict=Verdict(Outcome.HOLD, reasons))


def draft_of(  # noqa: PLR0913 -- a version names everything it came from
    project: ProjectContext,
    kind: str,
    snapshot: Snapshot,
    champion: Version | None,
    backbone: BackboneRecord,
    learned: Learned,
    verdict: Verdict,
) -> Draft:
    """A version before it has a number."""
    features = project.features(backbone.id)
    return Draft(
        kind=kind, backbone=backbone.id, head=learned.fitted.head, snapshot=snapshot.id,
        config=project.record.config.hash, code=code_version(), parent=champion.name if champion else None,
        reference=next_reference(champion, backbone, learned.evaluation),
        recipe={**learned.fitted.recipe, "seed": project.record.config.seed},
        evaluation=learned.evaluation, verdict=verdict, check_features=_check_rows(features),
    )  # fmt: skip


def next_reference(champion: Version | None, backbone: BackboneRecord, evaluation: Evaluation) -> str | None:
    """The fixed version that bounds summed-up losses; it moves on proof of being better, or with the backbone."""
    if champion is None or champion.backbone != backbone.id:
        return None
    against = evaluation.reference or evaluation.comparison
    if against and against.low > 0:
        return None  # the new version is its own reference
    return champion.reference or champion.name


def label_sets(
    project: ProjectContext, snapshot: Snapshot, champion: Version | None, features: FeatureStore
) -> LabelSets:
    """What each arm of the comparison may learn from."""
    project.catalogue.update()
    grown = examples_of(snapshot, project.catalogue, features, project.record.config.weights)
    if champion is None:
        return LabelSets(grown)
    reference = _reference(project, champion)
    return LabelSets(
        grown,
        champion=learned_by(project, champion, snapshot, features),
        reference=learned_by(project, reference, snapshot, features) if reference else None,
    )


def _reference(project: ProjectContext, champion: Version) -> Version | None:
    """None where its record cannot be read: then losses are bounded from here on."""
    try:
        return project.registry.version(champion.reference) if champion.reference else None
    except UNREADABLE as error:
        log.warning("the reference version is damaged", action="refresh", reason=str(error))
        return None


def _learn(
    project: ProjectContext, snapshot: Snapshot, champion: Version | None, backbone: BackboneRecord
) -> tuple[Learned, list[Task]]:
    """What was learned, and the labelled tasks that were not learned from for want of features."""
    features = project.features(backbone.id)
    sets = label_sets(project, snapshot, champion, features)
    lacking = without_features(snapshot, project.catalogue, features)
    saw = _saw(project, snapshot, backbone)
    config = project.record.config
    recipe = Recipe(
        class_min=config.refresh.class_min,
        choosable=project.rules.choosable(project.record.schema.classes),
        head=HeadRecipe(config.head, config.seed, champion.recipe if champion else {}),
        backbone_saw=saw,
        rules=project.rules,
        batch=config.refresh.after,
        pool=unlabelled(project, features, [*sets.grown, *(sets.champion or ()), *(sets.reference or ())]),
    )
    try:
        learned = refresh_evidence(sets, features.rows, champion=head_of(project, champion), recipe=recipe)
    except NotEnoughLabelsError as error:
        raise NotEnoughLabelsError(f"{error}; {without_words(lacking)}" if lacking else str(error)) from error
    return (_of_another_recipe(project, snapshot, champion, learned) if champion else learned), lacking


def _saw(project: ProjectContext, snapshot: Snapshot, backbone: BackboneRecord) -> Collection[str]:
    """Groups that the backbone may have learned from; rather too many than too few."""
    if not backbone.snapshot:
        return ()
    before = project.older(backbone.snapshot, backbone.created_at, snapshot.id, changed=False)
    return train_groups(before, project.catalogue)


def _of_another_recipe(project: ProjectContext, snapshot: Snapshot, champion: Version, learned: Learned) -> Learned:
    """Both arms out of fold are of the new recipe: what it does to the head that serves is looked at, too."""
    other = changes(champion.recipe, learned.fitted.recipe)
    tried = _tried_out(project, snapshot, champion, learned) if other else None
    changed = (*other, *_settings_changed(project, champion))
    return replace(learned, evaluation=replace(learned.evaluation, head_changed=changed, artefact=tried))


def _settings_changed(project: ProjectContext, champion: Version) -> tuple[str, ...]:
    """Those that change what a head learns, and do not show in its own recipe."""
    try:
        before = kept_config(project.store, champion.config)
    except UNREADABLE as error:
        log.warning("a kept config is damaged", action="refresh", reason=str(error))
        before = None
    if before is None:
        return ()
    now: dict[str, Any] = json.loads(canonical(project.record.config.model_dump(mode="json")))
    pool = ("unlabelled images",) if before.get("head", now["head"]).get("pool", True) != now["head"]["pool"] else ()
    weights = ("weights",) if before.get("weights", now["weights"]) != now["weights"] else ()
    return (*pool, *weights)


def _tried_out(project: ProjectContext, snapshot: Snapshot, champion: Version, learned: Learned) -> Artefact | None:
    from retrain_worker.evidence.artefact import (  # torch: most refreshes need none of it
        served,
        served_champion,
        tried_out,
    )

    theirs = served_champion(project, champion)
    if theirs is None:
        backbone = project.registry.backbone(champion.backbone)
        return tried_out(project, served(project, backbone, learned.fitted.head), None, snapshot)
    head = load_classifier(learned.fitted.head.dump(), learned.fitted.head.labels)
    return tried_out(project, replace(theirs, head=head), theirs, snapshot)


def head_of(project: ProjectContext, champion: Version | None) -> Classifier | None:
    """None where it is damaged, too: a bad champion must not keep a good challenger from replacing it."""
    try:
        return project.registry.head(champion) if champion else None
    except (CorruptArtefactError, NotFoundError) as error:
        log.warning("the champion's head is damaged", action="refresh", reason=str(error))
        return None


def learned_by(
    project: ProjectContext, version: Version, newest: Snapshot, features: FeatureStore
) -> Sequence[Example]:
    """The labels that a version was fitted on, as they count now."""
    before = project.older(version.snapshot, version.created_at, newest.id)
    return examples_of(project.rules.read(before), project.catalogue, features)


def _check_rows(features: FeatureStore) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return features.rows(list(features.index.places)[:CHECK_ROWS])
