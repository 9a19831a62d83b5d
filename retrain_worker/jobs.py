"""The RQ entry points, named by string in `labelloop.queue.jobs`: JSON in, JSON out, every run recorded."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
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
    LostRowsError,
    NotEnoughLabelsError,
    NotFoundError,
    PausedError,
    QueueError,
    StorageError,
    SupersededError,
)
from labelloop.extras import extras_named
from labelloop.queue.jobs import SCORE, JobQueue, job_id
from labelloop.queue.progress import check_cancelled
from labelloop.records.evidence import Outcome
from labelloop.records.json import to_dict
from labelloop.records.runs import AGAIN, TRANSIENT, WITHOUT, Run
from labelloop.store.configs import keep_config
from labelloop.store.runs import Claim
from labelloop.store.verdicts import Ending, Verdicts
from retrain_worker.context import Context, ProjectContext, make_context

if TYPE_CHECKING:
    from retrain_worker.refresh import RunResult

# not the inputs' fault: tried again until the world is whole
TRANSIENT_ERRORS = (
    StorageError, QueueError, LeaseLostError, ConflictError, DecodersBusyError, OSError, LostRowsError,
)  # fmt: skip

Job = Callable[..., dict[str, Any]]

log = structlog.get_logger()


@functools.cache
def context() -> Context:
    """One per process; built when the first job comes, or before by `prepare`."""
    return make_context()


def lost_rows() -> dict[str, list[tuple[str, str]]]:
    """See `Context.lost_rows`; nothing before the first job."""
    return context().lost_rows() if context.cache_info().currsize else {}


def _of_a_known_project(work: Job) -> Job:
    """A job of a project that was forgotten meanwhile ends quietly: nobody waits for it, and nothing is wrong.

    An argument that only a newer watcher knows is left out, as a new field of a record is by an older release.
    """
    parameters = inspect.signature(work).parameters

    @functools.wraps(work)
    def run(project: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if more := sorted(kwargs.keys() - parameters.keys()):
            log.warning("queued by a newer release", action="newer", job=work.__name__, left_out=more)
        try:
            with extras_named():
                return work(project, *args, **{name: value for name, value in kwargs.items() if name in parameters})
        except LabelloopError:
            if _is_known(project):
                raise
            log.info("the project was forgotten", action="forgotten", job=work.__name__, project=project)
            return {"forgotten": True}

    return run


def _is_known(project: str) -> bool:
    try:
        context().project(project)
    except NotFoundError:
        return False
    except LabelloopError:  # it cannot be told now
        return True
    return True


def prepare(queues: Sequence[str]) -> None:
    """Load what a refresh needs, so that no person waits for an import. torch waits for the first job that needs it."""
    if {"refresh", "score"} & set(queues):
        from retrain_worker import refresh, score  # noqa: F401
        from retrain_worker.evidence import curve  # noqa: F401


@_of_a_known_project
def featurise(project: str, uris: list[str], pool: int | None = None) -> dict[str, Any]:
    """Features of these images, and the split of all that are known, once these are enough."""
    from retrain_worker import featurise as module

    used = module.featurise(context(), context().project(project), uris, pool)
    return {"images": len(uris), "used": used}


@_of_a_known_project
def tidy(project: str) -> dict[str, Any]:
    """Remove what nothing needs any more."""
    from retrain_worker import tidy as module

    return module.tidy(context().project(project))


@_of_a_known_project
def refresh(project: str, snapshot: str, attempt: int, answers: Sequence[str] = (), wish: str = "") -> dict[str, Any]:
    """A new head from a snapshot."""
    from retrain_worker import refresh as module
    from retrain_worker.evidence.curve import follow_quietly

    request = RunRequest("refresh", project, snapshot, attempt, answers, wish)
    ended = _recorded(request, lambda project, claim: module.refresh(context(), project, snapshot, claim))
    if not ended.get("version"):  # with one, `score` follows
        follow_quietly(context().project(project))
    return ended


@_of_a_known_project
def retrain(project: str, snapshot: str, attempt: int, answers: Sequence[str] = (), wish: str = "") -> dict[str, Any]:
    """A fine-tuned backbone, its features, and a head on the newest snapshot."""
    from retrain_worker import retrain as module

    request = RunRequest("retrain", project, snapshot, attempt, answers, wish)
    return _recorded(request, lambda project, claim: module.retrain(context(), project, snapshot, claim))


@_of_a_known_project
def trial(project: str, study: str, number: int) -> dict[str, Any]:
    """One set of settings of a search."""
    from retrain_worker.tuning.trial import run_trial

    job = get_current_job()
    ended = run_trial(context(), context().project(project), study, number, (job.worker_name or "") if job else "")
    return {"state": ended.state, "accuracy": ended.accuracy}


@_of_a_known_project
def lr_find(project: str, name: str, by: str) -> dict[str, Any]:
    """The loss over learning rates, and the one to take."""
    from retrain_worker.tuning.lr_finder import find

    return find(context(), context().project(project), name, by)


@_of_a_known_project
def score(project: str, version: str) -> dict[str, Any]:
    """The order of the queue under one version."""
    from retrain_worker import score as module
    from retrain_worker.evidence.curve import follow_quietly

    places = module.score(context(), context().project(project), version)
    follow_quietly(context().project(project))  # the order is what people wait for
    return {"places": places}


@_of_a_known_project
def predict(project: str, batch: str, shard: int) -> dict[str, Any]:
    """What a version says of one shard of a batch."""
    from retrain_worker import predict as module

    return {"read": module.predict(context(), context().project(project), batch, shard)}


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the watcher queued."""

    kind: str
    project: str
    snapshot: str
    attempt: int
    answers: Sequence[str]  # requests of people
    wish: str


Work = Callable[[ProjectContext, Claim], "RunResult"]


def _recorded(request: RunRequest, work: Work) -> dict[str, Any]:
    """One verdict for one wish, with a record from the start; a failure is a record, too, and never a dead worker."""
    project = context().project(request.project)
    verdicts = Verdicts(project.runs, project.registry)
    try:
        claim = verdicts.begin(request.kind, request.wish, lambda wish: _started(project, request, wish))
    except SupersededError as error:
        return _superseded(error)
    try:
        answer = _answer(project, claim, work)
        _score(project, answer.ending.version)
        verdicts.end(claim.run, answer.ending)
    except SupersededError as error:
        verdicts.give_up(claim.run, str(error))
        return _superseded(error)
    except Exception as error:  # the edge of a job
        _log_failure(request, error)
        verdicts.fail(claim.run, _failure(error))
        raise
    ending = answer.ending
    verdict = {"outcome": ending.outcome, "reasons": list(ending.reasons), "version": ending.version}
    log.info("judged", action="judge", run=claim.run.id, **verdict)
    _follow_up(answer)
    return verdict


def _started(project: ProjectContext, request: RunRequest, wish: str) -> Run:
    job = get_current_job()
    return project.runs.start(
        request.kind, snapshot=request.snapshot, config=project.record.config.hash, attempt=request.attempt,
        worker=(job.worker_name or "") if job else "", queued_at=job.meta.get("queued_at") if job else None,
        answers=request.answers, wish=wish, **(_of_a_retrain(project) if request.kind == "retrain" else {}),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class JobResult:
    """A verdict, and what may wait until it is recorded."""

    ending: Ending
    afterwards: Callable[[], None] = lambda: None


def _answer(project: ProjectContext, claim: Claim, work: Work) -> JobResult:
    """Where people stop it, or nothing can be fitted, that is the verdict."""
    try:
        keep_config(project.store, project.record.config)
        check_cancelled(get_current_job())
        project.registry.pauses.check()
        judged = work(project, claim)
    except CancelledError as error:  # it counts as done: the same inputs are not run again
        log.warning("run cancelled", action="cancel", run=claim.run.id, reason=str(error))
        return JobResult(Ending(Outcome.HOLD.value, (str(error),)))
    except PausedError as error:
        return JobResult(Ending(Outcome.HOLD.value, (f"not run, {error}",), detail={AGAIN: True}))
    except NotEnoughLabelsError as error:
        return JobResult(Ending(Outcome.HOLD.value, (str(error),)))
    verdict = judged.verdict
    ending = Ending(verdict.outcome.value, verdict.reasons, judged.version, _detail(judged))
    return JobResult(ending, judged.afterwards)


def _log_failure(request: RunRequest, error: Exception) -> None:
    if isinstance(error, LabelloopError):
        log.error("run failed", action="run", kind=request.kind, project=request.project, reason=str(error))
    else:
        log.exception("run failed unexpectedly", action="run", kind=request.kind, project=request.project)


def _failure(error: Exception) -> Ending:
    """As a record says it."""
    if isinstance(error, TRANSIENT_ERRORS):
        transient = not isinstance(error, NotFoundError)
        return Ending("failed", (f"{type(error).__name__}: {error}",), detail={TRANSIENT: transient})
    if isinstance(error, LabelloopError):
        return Ending("failed", (str(error),))
    return Ending("failed", (f"{type(error).__name__}: {error}",))


def _superseded(error: SupersededError) -> dict[str, Any]:
    """It is no failure: the wish has its answer, or will have it."""
    log.warning("run superseded", action="supersede", reason=str(error))
    return {"superseded": str(error)}


def _follow_up(answer: JobResult) -> None:
    """The verdict stands, whatever becomes of this."""
    try:
        answer.afterwards()
    except Exception:  # the edge of a step that nothing depends on
        log.exception("what follows a verdict failed", action="afterwards")


def _of_a_retrain(project: ProjectContext) -> dict[str, Any]:
    """What the next one is compared with."""
    backbone = project.registry.current_backbone()
    images = len(project.features(backbone.id).index) if backbone else 0
    return {"recipe": project.record.config.recipe, "images": images}


def _detail(judged: RunResult) -> dict[str, Any]:
    training = {"training": dict(judged.training)} if judged.training else {}
    without = {WITHOUT: list(judged.without)} if judged.without else {}
    return {"evaluation": to_dict(judged.evaluation), **training, **without, **({AGAIN: True} if judged.again else {})}


def _score(project: ProjectContext, version: str | None) -> None:
    """The order is wanted at once after a deploy; sync would ask for it, a second later."""
    if version:
        payload = {"project": project.record.key, "version": version}
        with suppress(QueueError):  # the verdict does not wait for it
            JobQueue(context().redis).enqueue(SCORE, job_id(SCORE, project.record.key, version), payload)
