"""The RQ entry points, named by string in `labelloop.queue`: JSON in, JSON out, every run recorded."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from rq import get_current_job

from labelloop.errors import (
    CancelledError,
    ConflictError,
    DecodersBusyError,
    LabelloopError,
    LeaseLostError,
    NotEnoughLabelsError,
    NotFoundError,
    PausedError,
    QueueError,
    StorageError,
)
from labelloop.kept_configs import keep_config
from labelloop.queue import SCORE, JobQueue, check_cancelled, job_id
from labelloop.records import Outcome, to_dict
from labelloop.runs import AGAIN, TRANSIENT
from retrain_worker.context import Context, ProjectContext, make_context

if TYPE_CHECKING:
    from retrain_worker.refresh import Judged

# not the inputs' fault: tried again until the world is whole
TRANSIENT_ERRORS = (StorageError, QueueError, LeaseLostError, ConflictError, DecodersBusyError, OSError)

log = structlog.get_logger()


@functools.cache
def context() -> Context:
    """One per process; built when the first job comes, or before by `prepare`."""
    return make_context()


def prepare(queues: Sequence[str]) -> None:
    """Load what a refresh needs, so that no person waits for an import. torch waits for the first job that needs it."""
    if {"refresh", "score"} & set(queues):
        from retrain_worker import curve, refresh, score  # noqa: F401


def featurise(project: str, uris: list[str]) -> dict[str, Any]:
    """Bucket and features of these images."""
    from retrain_worker import featurise as module

    used = module.featurise(context(), context().project(project), uris)
    return {"images": len(uris), "used": used}


def tidy(project: str) -> dict[str, Any]:
    """Remove what nothing needs any more."""
    from retrain_worker import tidy as module

    return module.tidy(context().project(project))


def refresh(project: str, snapshot: str, attempt: int, answers: Sequence[str] = ()) -> dict[str, Any]:
    """A new head from a snapshot."""
    from retrain_worker import refresh as module
    from retrain_worker.curve import follow_quietly

    asked = Asked("refresh", project, snapshot, attempt, answers)
    ended = _recorded(asked, lambda c, p: module.refresh(c, p, snapshot))
    if not ended.get("version"):  # with one, `score` follows
        follow_quietly(context().project(project))
    return ended


def retrain(project: str, snapshot: str, attempt: int, answers: Sequence[str] = ()) -> dict[str, Any]:
    """A fine-tuned backbone, its features, and a head on the newest snapshot."""
    from retrain_worker import retrain as module

    return _recorded(Asked("retrain", project, snapshot, attempt, answers), lambda c, p: module.retrain(c, p, snapshot))


def trial(project: str, study: str, number: int) -> dict[str, Any]:
    """One set of settings of a search."""
    from retrain_worker.tuning.trial import run_trial

    job = get_current_job()
    found = run_trial(context(), context().project(project), study, number, (job.worker_name or "") if job else "")
    return {"state": found.state, "accuracy": found.accuracy}


def lr_find(project: str, name: str, by: str) -> dict[str, Any]:
    """The loss over learning rates, and the one to take."""
    from retrain_worker.tuning.lr_finder import find

    return find(context(), context().project(project), name, by)


def score(project: str, version: str) -> dict[str, Any]:
    """The order of the queue under one version."""
    from retrain_worker import score as module
    from retrain_worker.curve import follow_quietly

    places = module.score(context(), context().project(project), version)
    follow_quietly(context().project(project))  # the order is what people wait for
    return {"places": places}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the watcher queued."""

    kind: str
    project: str
    snapshot: str
    attempt: int
    answers: Sequence[str]  # requests of people


def _recorded(asked: Asked, work: Callable[[Context, ProjectContext], Judged]) -> dict[str, Any]:
    """Write the run record before and after; a failure is a record, too, and never a dead worker."""
    kind, key = asked.kind, asked.project
    project = context().project(key)
    job = get_current_job()
    run = project.runs.start(
        kind, snapshot=asked.snapshot, config=project.record.config.hash, attempt=asked.attempt,
        worker=(job.worker_name or "") if job else "", queued_at=job.meta.get("queued_at") if job else None,
        answers=asked.answers, **(_of_a_retrain(project) if kind == "retrain" else {}),
    )  # fmt: skip
    try:
        keep_config(project.store, project.record.config)
        check_cancelled(job)
        project.registry.pauses.check()
        judged = work(context(), project)
    except CancelledError as error:  # it counts as done: the same inputs are not run again
        project.runs.end(run, Outcome.HOLD.value, (str(error),))
        log.warning("run cancelled", action="cancel", run=run.id, reason=str(error))
        return {"outcome": "hold", "reasons": [str(error)]}
    except PausedError as error:
        project.runs.end(run, Outcome.HOLD.value, (f"not run, {error}",), detail={AGAIN: True})
        return {"outcome": "hold", "reasons": [str(error)]}
    except NotEnoughLabelsError as error:
        project.runs.end(run, Outcome.HOLD.value, (str(error),))
        return {"outcome": "hold", "reasons": [str(error)]}
    except TRANSIENT_ERRORS as error:
        transient = not isinstance(error, NotFoundError)
        project.runs.end(run, "failed", (f"{type(error).__name__}: {error}",), detail={TRANSIENT: transient})
        log.error("run failed", action="run", kind=kind, project=key, reason=str(error))
        raise
    except LabelloopError as error:
        project.runs.end(run, "failed", (str(error),))
        log.error("run failed", action="run", kind=kind, project=key, reason=str(error))
        raise
    except Exception as error:  # the edge of a job
        project.runs.end(run, "failed", (f"{type(error).__name__}: {error}",))
        log.exception("run failed unexpectedly", action="run", kind=kind, project=key)
        raise
    return _ended(
        project,
        run_id=run.id,
        judged=judged,
        end=lambda: project.runs.end(
            run, judged.verdict.outcome.value, judged.verdict.reasons, version=judged.version, detail=_detail(judged)
        ),
    )


def _of_a_retrain(project: ProjectContext) -> dict[str, Any]:
    """What the next one is compared with."""
    backbone = project.registry.current_backbone()
    images = len(project.features(backbone.id).index) if backbone else 0
    return {"recipe": project.record.config.recipe, "images": images}


def _detail(judged: Judged) -> dict[str, Any]:
    training = {"training": dict(judged.training)} if judged.training else {}
    return {"evaluation": to_dict(judged.evaluation), **training, **({AGAIN: True} if judged.again else {})}


def _ended(project: ProjectContext, *, run_id: str, judged: Judged, end: Callable[[], object]) -> dict[str, Any]:
    """The order is wanted at once after a deploy; sync would ask for it, a second later."""
    if judged.version:
        payload = {"project": project.record.key, "version": judged.version}
        JobQueue(context().redis).enqueue(SCORE, job_id(SCORE, project.record.key, judged.version), payload)
    end()
    outcome = judged.verdict.outcome.value
    log.info("judged", action="judge", run=run_id, outcome=outcome, version=judged.version,
             reasons=list(judged.verdict.reasons))  # fmt: skip
    return {"outcome": outcome, "reasons": list(judged.verdict.reasons), "version": judged.version}
