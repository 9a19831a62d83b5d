"""A retrain in; its curves and figures in TensorBoard's files and on an MLflow server, where a deployment has them.

Tracking decides nothing: what goes wrong with it is logged once, and the run goes on without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from labelloop.config.settings import Settings, calm_mlflow
from labelloop.records.evidence import Evaluation, Verdict
from retrain_worker.training.fit import Epoch

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = structlog.get_logger()
FIGURES = ("accuracy", "test_accuracy", "ece", "log_loss", "known_accuracy")  # of an Evaluation


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What a run is a function of, and what it is called. ``parameters`` are flat."""

    project: str  # title
    key: str  # of the project
    snapshot: str
    config: str
    parameters: Mapping[str, Any]

    @property
    def inputs(self) -> str:
        """The same for each attempt, so that one that goes on writes where the killed one wrote."""
        return f"{self.snapshot[:12]}-{self.config}"


@dataclass(frozen=True, slots=True)
class TrackedResult:
    """What became of it."""

    version: str
    evaluation: Evaluation
    verdict: Verdict
    page: str | None  # the evaluation report

    @property
    def figures(self) -> dict[str, float]:
        """Those that there are."""
        figures = {name: getattr(self.evaluation, name) for name in FIGURES}
        return {name: float(value) for name, value in figures.items() if value is not None}


class Tracker(Protocol):
    """One place where runs are followed."""

    def epoch(self, epoch: Epoch) -> None:
        """An epoch has ended."""

    def end(self, ended: TrackedResult) -> None:
        """The run was judged."""


class Tracking:
    """All trackers of a deployment. An epoch is told once, however often it is given."""

    def __init__(self, makers: Sequence[Callable[[], Tracker]]) -> None:
        self._trackers: list[Tracker] = []
        self._told: set[int] = set()
        for make in makers:
            self._shielded(lambda make=make: self._trackers.append(make()))  # type: ignore[misc]

    def epoch(self, epoch: Epoch) -> None:
        """Tell of one that has ended."""
        if epoch.number not in self._told:
            self._told.add(epoch.number)
            self._each(lambda tracker: tracker.epoch(epoch))

    def end(self, ended: TrackedResult) -> None:
        """Tell what became of the run."""
        self._each(lambda tracker: tracker.end(ended))

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        self._trackers = [t for t in self._trackers if self._shielded(lambda t=t: tell(t))]  # type: ignore[misc]

    @staticmethod
    def _shielded(work: Callable[[], None]) -> bool:
        """Whether it went well. One that failed is asked no more: a dead server would cost its timeout each time."""
        try:
            work()
        except Exception as error:  # the edge to other people's servers and disks
            log.warning("tracking stopped for this run", action="track", reason=f"{type(error).__name__}: {error}")
            return False
        return True


def tracking(settings: Settings, origin: TrackedRun) -> Tracking:
    """What this deployment has."""
    makers: list[Callable[[], Tracker]] = []
    folder, uri = settings.tensorboard_dir, settings.mlflow_uri
    if folder:
        makers.append(lambda: TensorBoard(folder, origin))
    if uri:
        makers.append(lambda: Mlflow(uri, origin))
    return Tracking(makers)


class TensorBoard:
    """Event files below ``folder/<project>/<snapshot>-<config>``."""

    def __init__(self, folder: Path, origin: TrackedRun) -> None:
        from tensorboardX import SummaryWriter  # only where a deployment wants it

        # what an earlier attempt wrote is replaced step by step
        self._writer = SummaryWriter(str(folder / origin.key / origin.inputs), purge_step=0)
        self._writer.add_text("parameters", _markdown(origin.parameters), 0)

    def epoch(self, epoch: Epoch) -> None:
        """Scalars by epoch."""
        for name, value in _of(epoch).items():
            self._writer.add_scalar(f"epoch/{name}", value, epoch.number)
        self._writer.flush()

    def end(self, ended: TrackedResult) -> None:
        """Figures, the verdict in words."""
        for name, value in ended.figures.items():
            self._writer.add_scalar(f"judged/{name}", value, 0)
        lines = [f"**{ended.version}: {ended.verdict.outcome.value}**", *ended.verdict.reasons]
        self._writer.add_text("verdict", "\n\n".join(lines), 0)
        self._writer.close()


class Mlflow:
    """One run of the experiment that is called like the project; a second attempt goes on in the first one's."""

    def __init__(self, uri: str, origin: TrackedRun) -> None:
        calm_mlflow()
        from mlflow import MlflowClient  # only where a deployment wants it: seconds to import

        self._client = MlflowClient(tracking_uri=uri)
        self._run = self._begin(self._client, origin)

    @staticmethod
    def _begin(client: MlflowClient, origin: TrackedRun) -> str:
        from mlflow.entities import Param

        existing = client.get_experiment_by_name(origin.project)
        experiment = existing.experiment_id if existing else client.create_experiment(origin.project)
        earlier = client.search_runs([experiment], f"tags.`labelloop.inputs` = '{origin.inputs}'", max_results=1)
        if earlier:
            return str(earlier[0].info.run_id)
        tags = {
            "labelloop.inputs": origin.inputs, "labelloop.project": origin.key, "labelloop.snapshot": origin.snapshot
        }  # fmt: skip
        run = client.create_run(experiment, tags=tags, run_name=f"retrain {origin.inputs}").info.run_id
        client.log_batch(run, params=[Param(name, str(value)) for name, value in origin.parameters.items()])
        return str(run)

    def epoch(self, epoch: Epoch) -> None:
        """Metrics by epoch."""
        self._log(_of(epoch), epoch.number)

    def end(self, ended: TrackedResult) -> None:
        """Figures, the verdict as tags, the evaluation report as an artefact."""
        self._log({f"judged_{name}": value for name, value in ended.figures.items()}, 0)
        self._client.set_tag(self._run, "labelloop.version", ended.version)
        self._client.set_tag(self._run, "labelloop.verdict", ended.verdict.outcome.value)
        self._client.set_tag(self._run, "labelloop.reasons", "; ".join(ended.verdict.reasons))
        if ended.page:
            self._client.log_text(self._run, ended.page, "report.html")
        self._client.set_terminated(self._run, "FINISHED")

    def _log(self, figures: Mapping[str, float], step: int) -> None:
        """In one request."""
        from mlflow.entities import Metric

        at = int(time.time() * 1000)
        self._client.log_batch(self._run, [Metric(name, value, at, step) for name, value in figures.items()])


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    settings: dict[str, Any] = {}
    for name, value in values.items():
        settings |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return settings


def _of(epoch: Epoch) -> dict[str, float]:
    named = {
        "loss": epoch.loss, "validation_loss": epoch.validation_loss, "validation_accuracy": epoch.validation_accuracy,
        "learning_rate": epoch.rate, "seconds": epoch.seconds, "waited_s": epoch.waited_s,
    }  # fmt: skip
    return {name: float(value) for name, value in named.items() if value is not None}


def _markdown(parameters: Mapping[str, Any]) -> str:
    return "\n".join(["| parameter | value |", "|---|---|", *(f"| {k} | {v} |" for k, v in parameters.items())])
