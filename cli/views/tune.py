"""A search as tables: what was tried, which was best, what each setting seems to matter."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from labelloop.store.studies import Trial
from operations.models.tune import StudyResults, params_text

SHOWN = 30


def study_view(results: StudyResults, *, every: bool = False) -> RenderableType:
    """Best first; trials that run or failed below."""
    rules, study = results.study.rules, results.study
    title = (
        f"study {study.name}: {rules.sampler}, pruning {rules.pruner}, {rules.count - results.left} of {rules.count} "
        f"trials ended; judged on the validation part of snapshot {study.snapshot[:12]}"
    )
    parts: list[RenderableType] = [
        Text(title, style="bold"),
        _table(_ranked(results.trials, every=every), results.best),
    ]
    if study.cancelled:
        parts.append(Text("cancelled: no further trial begins", style="yellow"))
    return Group(*parts)


def _ranked(trials: Sequence[Trial], *, every: bool) -> list[Trial]:
    ranked = sorted(trials, key=lambda t: (t.accuracy is None, -(t.accuracy or 0.0), t.loss or 0.0, t.number))
    return ranked if every else ranked[:SHOWN]


def _table(trials: Sequence[Trial], best: Trial | None) -> Table:
    table = Table(
        "trial", "accuracy", "log loss", "epochs", "time", "parameters", "MB", "ms/image", "settings", box=None
    )
    for trial in trials:
        figures = trial.figures
        mark = " ●" if best and trial.number == best.number else ""
        table.add_row(
            f"{trial.number}{mark}", _number(trial.accuracy, 4), _number(trial.loss, 3), str(figures.get("epochs", "")),
            _seconds(figures.get("seconds")), _millions(figures.get("parameters")),
            _number(figures.get("bytes", 0) / 1e6 or None, 1), _number(figures.get("ms"), 1),
            _settings(trial), style="bold" if mark else "dim" if trial.state in {"pruned", "failed"} else "",
        )  # fmt: skip
    return table


def _settings(trial: Trial) -> str:
    state = "" if trial.state == "complete" else f"[{trial.state}] "
    return f"{state}{params_text(trial.params)}{': ' + trial.why if trial.why else ''}".replace("[", "\\[")


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min"


def _millions(value: float | None) -> str:
    return "" if value is None else f"{value / 1e6:.2f} M"
