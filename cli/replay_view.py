"""What a replay found in, a table, a picture and JSON out."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Group
from rich.table import Table

from retrain_worker.replay.comparison import Interval, Saving
from retrain_worker.replay.rounds import RANDOM, Replayed

INK, FAINT = "#1f2937", "#9ca3af"
MARKS = (10, 20, 50, 100, 200, 500, 1000, 2000)


def replay_view(found: Replayed) -> Group:
    """The strategies, the best area first."""
    table = Table(box=None, header_style="bold")
    for head in ("strategy", "labels", "times fewer", "area", "points over random", "worst checkpoint"):
        table.add_column(head, justify="left" if head == "strategy" else "right")
    means = found.means()
    marks = [m for m in MARKS if m <= means[RANDOM].labels[-1]]
    for mark in marks:
        table.add_column(f"at {mark}", justify="right")
    for saving in found.savings():
        curve = means[saving.strategy]
        at = [f"{np.interp(m, curve.labels, curve.accuracy):.3f}" for m in marks]
        table.add_row(saving.strategy, *_told(saving), *at)
    final, seeds = means[RANDOM], len(found.curves[RANDOM])
    return Group(
        f"{found.history}: {found.classes} classes, {seeds} seeds; random order ends at {final.accuracy[-1]:.3f} with "
        f"{final.labels[-1]} labels",
        table,
        "labels: to reach where random order ends; times fewer: labels that random order needs for it, by these (95 % "
        "over seeds)",
    )


def as_json(found: Replayed) -> dict[str, Any]:
    """Curves and savings."""
    savings = [asdict(s) for s in found.savings()]
    for saving in savings:
        saving["labels"] = saving["labels"] if math.isfinite(saving["labels"]) else None
    curves = {name: [asdict(c) for c in curves] for name, curves in found.curves.items()}
    return {"history": found.history, "classes": found.classes, "savings": savings, "curves": curves}


def plot_replay(found: Replayed, path: Path) -> None:
    """Mean accuracy by labels, with the standard error over seeds; PNG or SVG by the file's name."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for place, (name, curve) in enumerate(found.means().items()):
        rows = np.array([c.accuracy[: len(curve.labels)] for c in found.curves[name]])
        error = rows.std(axis=0, ddof=1) / np.sqrt(len(rows)) if len(rows) > 1 else np.zeros(len(curve.labels))
        color = FAINT if name == RANDOM else f"C{place}"
        axes.plot(curve.labels, curve.accuracy, color=color, label=name, linewidth=2.5 if name == RANDOM else 1.5)
        axes.fill_between(
            curve.labels, np.array(curve.accuracy) - error, np.array(curve.accuracy) + error, color=color, alpha=0.15,
            linewidth=0,
        )  # fmt: skip
    axes.set(xscale="log", xlabel="labels", ylabel="accuracy on images held out", title=found.history)
    axes.grid(visible=True, alpha=0.2)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def _told(saving: Saving) -> tuple[str, ...]:
    labels = f"{saving.labels:.0f}" if math.isfinite(saving.labels) else "never"
    if saving.strategy == RANDOM:
        return labels, "1", f"{saving.area:.4f}", "", ""
    worst = f"{100 * saving.worst.value:+.1f} at {saving.worst_at}"
    return labels, _interval(saving.times_fewer, 1), f"{saving.area:.4f}", _interval(saving.gain, 100), worst


def _interval(found: Interval, times: float) -> str:
    return f"{times * found.value:.1f} ({times * found.low:.1f} to {times * found.high:.1f})"
