"""Run records in, the rows of `labelloop runs` out. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from labelloop.clock import parse
from labelloop.records.evidence import Evaluation, evaluation_from
from labelloop.records.runs import Run

RETRAIN = "retrain"


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run in short."""

    id: str
    short: str  # names it wherever a run is asked for
    kind: str
    outcome: str
    version: str | None
    live: bool  # its version answers now
    labels: int | None
    new_labels: int | None
    evidence: str
    duration_s: float | None
    started_at: str
    reason: str


def rows(runs: Iterable[Run], live: str | None, twice: Collection[str] = ()) -> list[RunRow]:
    """Runs in short, in the order given. ``twice``: short ids that more than one run has."""
    return [_row(run, live, twice) for run in runs]


def short_id(run: Run, twice: Collection[str] = ()) -> str:
    """The short id, or the whole one where two runs share it."""
    return run.id if run.short in twice else run.short


def evaluation_of(run: Run) -> Evaluation | None:
    """What the gate looked at, where the run came so far."""
    recorded = run.detail.get("evaluation")
    return evaluation_from(recorded) if recorded else None


def seconds(begin: str | None, end: str | None) -> float | None:
    """Between two times; None where one is missing."""
    return (parse(end) - parse(begin)).total_seconds() if begin and end else None


def evidence(evaluation: Evaluation) -> str:
    """Accuracy, and in points how it compares with the champion: a retrain is judged on test labels."""
    retrain = evaluation.kind == RETRAIN
    accuracy = evaluation.test_accuracy if retrain else evaluation.accuracy
    compared = evaluation.test_comparison if retrain else evaluation.comparison
    if accuracy is None:
        return ""
    text = f"{'test ' if retrain else ''}{accuracy:.3f}"
    return f"{text} {100 * compared.difference:+.1f}" if compared and compared.n else text


def _row(run: Run, live: str | None, twice: Collection[str]) -> RunRow:
    evaluation = evaluation_of(run)
    return RunRow(
        id=run.id, short=short_id(run, twice), kind=run.kind, outcome=run.outcome, version=run.version,
        live=run.version is not None and run.version == live, labels=evaluation.labels if evaluation else None,
        new_labels=evaluation.new_labels if evaluation else None, evidence=evidence(evaluation) if evaluation else "",
        duration_s=seconds(run.started_at, run.ended_at), started_at=run.started_at,
        reason=run.reasons[0] if run.reasons else "",
    )  # fmt: skip
