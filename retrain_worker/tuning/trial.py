"""One trial: a fine-tune under proposed settings, judged on the validation part; test and audit are never looked at."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import structlog

from labelloop.clock import now
from labelloop.errors import CancelledError, NotEnoughLabelsError, SettingsError
from labelloop.model import net
from labelloop.model.net import Backbone
from labelloop.queue.progress import JobProgress
from labelloop.store.studies import ATTEMPTS, Study, StudyStore, Trial
from retrain_worker.context import Context, ProjectContext
from retrain_worker.evidence.artefact import in_turn
from retrain_worker.retrain import source_of, train_examples
from retrain_worker.training.checkpoint import StoredKeeper
from retrain_worker.training.data import parts_of
from retrain_worker.training.fit import Epoch, FineTune, FineTuneHistory, fit
from retrain_worker.training.warm import warm_head
from retrain_worker.tuning.search import TrialProposal

log = structlog.get_logger()


@dataclass
class _Ending:
    """Why a trial ended before its last epoch."""

    pruned: bool = False
    cancelled: bool = False
    superseded: bool = False  # begun again by somebody else: this worker was believed dead


def run_trial(context: Context, project: ProjectContext, study_name: str, number: int, worker: str = "") -> Trial:
    """Run or resume it; the record says how it ended. Errors of stores are raised: the trial is tried again."""
    studies = StudyStore(project.store)
    study, earlier = studies.get(study_name), studies.trial(study_name, number)
    if earlier and earlier.ended:
        return earlier
    ended = [t for t in studies.trials(study_name) if t.ended]
    proposal = TrialProposal(study.rules, ended, number, earlier.params if earlier else None)
    attempt = earlier.attempt + 1 if earlier else 1
    trial = Trial(number, proposal.params, attempt=attempt, worker=worker, started_at=now())
    if not studies.take(study_name, trial):
        return studies.trial(study_name, number) or trial
    if attempt > ATTEMPTS:
        why = f"its worker died {ATTEMPTS} times, perhaps for want of memory"
        return _ended(studies, study_name, replace(trial, state="failed", why=why))
    try:
        trial = _tried(context, project, study, trial, proposal)
    except CancelledError as error:
        trial = replace(trial, state="failed", why=str(error))
    except (SettingsError, NotEnoughLabelsError) as error:  # another try would end in the same way
        trial = replace(trial, state="failed", why=str(error))
    except Exception as error:  # the edge of a job: one trial's surprise must not stop the search
        if attempt < ATTEMPTS:
            raise
        trial = replace(trial, state="failed", why=f"{type(error).__name__}: {error}")
    return _ended(studies, study_name, trial)


def _ended(studies: StudyStore, study: str, trial: Trial) -> Trial:
    """One verdict for each trial: who was believed dead and comes back finds it begun again, and changes nothing."""
    ours = replace(trial, ended_at=now())
    trial = studies.end(study, ours)
    if trial != ours:
        log.warning("trial superseded", action="supersede", study=study, number=trial.number, attempt=ours.attempt)
        return trial
    log.info("trial ended", action="trial", study=study, number=trial.number, state=trial.state,
             accuracy=trial.accuracy, reason=trial.why)  # fmt: skip
    return trial


def _tried(context: Context, project: ProjectContext, study: Study, trial: Trial, proposal: TrialProposal) -> Trial:
    progress, ending, began = JobProgress.of_job(), _Ending(), time.monotonic()
    config = study.config_with(trial.params)
    backbone = net.build(
        config.backbone, context.settings.weights_dirs, offline=context.settings.offline, device=net.best_device()
    )
    examples = train_examples(project, project.snapshot(study.snapshot))
    parts = parts_of(examples, source_of(project, backbone), config.retrain, config.refresh.class_min, progress.report)
    keeper = StoredKeeper(project.store, {"study": study.name, "trial": trial.number, "params": dict(trial.params)})

    def after(epoch: Epoch) -> bool:
        ending.pruned = proposal.hopeless(epoch.number, epoch.validation_accuracy or 0.0)
        studies = StudyStore(project.store)
        ending.cancelled = studies.get(study.name).cancelled
        kept = studies.trial(study.name, trial.number)
        ending.superseded = kept is None or not kept.same_run(trial)
        return ending.pruned or ending.cancelled or ending.superseded

    run = FineTune(backbone, parts, config.retrain, config.seed, keeper, progress.report, after=after)
    history = fit(run, warm_head(parts, backbone) if config.retrain.warm_head else None)
    if not ending.superseded:  # the checkpoint is by now another worker's
        keeper.clear()
    state = "pruned" if ending.pruned or ending.cancelled else "complete"
    return _with_figures(replace(trial, state=state), history, backbone, time.monotonic() - began)


def _with_figures(trial: Trial, history: FineTuneHistory, backbone: Backbone, seconds: float) -> Trial:
    best = history.epochs[history.best - 1]
    curve = tuple((e.validation_accuracy or 0.0, e.validation_loss or 0.0) for e in history.epochs)
    return replace(
        trial, accuracy=best.validation_accuracy, loss=best.validation_loss, curve=curve,
        figures={**_size(backbone), "seconds": seconds, "epochs": len(history.epochs), "best_epoch": history.best,
                 "images_per_s": history.images_per_s},
    )  # fmt: skip


def _size(backbone: Backbone) -> Mapping[str, Any]:
    """Parameters, bytes of the weights, and milliseconds of one image at its fastest."""
    size = backbone.square.size
    image = np.zeros((1, 3, size, size), dtype=np.uint8)
    (spent,) = in_turn([lambda: backbone.features(image)], rounds=7)
    parameters = sum(p.numel() for p in backbone.module.parameters())
    return {"parameters": parameters, "bytes": len(net.dump(backbone)), "ms": spent, "device": str(backbone.device)}
