"""What a replay found in, a table, a picture and JSON out."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from rich.console import Group
from rich.table import Table

from labelloop.rules.intervals import Interval
from retrain_worker.replay.comparison import Saving
from retrain_worker.replay.rounds import RANDOM, Replayed

INK = "#1f2937"
SHOWN = (0.02, 0.998)  # accuracies beyond lie on the edge: nought and one lie infinitely far away
TICKS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)
MARKS = (10, 20, 50, 100, 200, 500, 1000, 2000)


def replay_view(replayed: Replayed) -> Group:
    """The strategies, the best area first."""
    table = Table(box=None, header_style="bold")
    for head in ("strategy", "labels", "times fewer", "area", "points over random", "worst checkpoint"):
        table.add_column(head, justify="left" if head == "strategy" else "right")
    means = replayed.means()
    marks = [m for m in MARKS if m <= means[RANDOM].labels[-1]]
    for mark in marks:
        table.add_column(f"at {mark}", justify="right")
    for saving in replayed.savings():
        curve = means[saving.strategy]
        at = [f"{np.interp(m, curve.labels, curve.accuracy):.3f}" for m in marks]
        table.add_row(saving.strategy, *_cells(saving), *at)
    final, seeds = means[RANDOM], len(replayed.curves[RANDOM])
    return Group(
        f"{replayed.history}: {replayed.classes} classes, {seeds} seeds; random order ends at {final.accuracy[-1]:.3f} "
        f"with {final.labels[-1]} labels",
        table,
        "labels: to reach where random order ends; times fewer: labels that random order needs for it, for the "
        "same accuracy (95 % over seeds)",
    )


def as_json(replayed: Replayed) -> dict[str, Any]:
    """Curves and savings."""
    savings = [asdict(s) for s in replayed.savings()]
    for saving in savings:
        saving["labels"] = saving["labels"] if math.isfinite(saving["labels"]) else None
    curves = {name: [asdict(c) for c in curves] for name, curves in replayed.curves.items()}
    return {"history": replayed.history, "classes": replayed.classes, "savings": savings, "curves": curves}


def plot_replay(replayed: Replayed, path: Path) -> None:
    """Mean accuracy by labels, with the standard error over seeds, the best area first; PNG or SVG by the file's name.

    Both axes are drawn out where much happens: few labels, and accuracies near 1.
    """
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    means, order = replayed.means(), [saving.strategy for saving in replayed.savings()]
    for place, name in enumerate(order):
        counts = np.array(means[name].labels)
        rows = np.clip([c.accuracy[: len(counts)] for c in replayed.curves[name]], *SHOWN)
        error = rows.std(axis=0, ddof=1) / np.sqrt(len(rows)) if len(rows) > 1 else np.zeros(len(counts))
        middle = rows.mean(axis=0)
        style = (
            (INK, ":", 2.5)
            if name == RANDOM
            else (f"C{place % 10}", "-" if place < 10 else "--", 3.5 if name == "auto" else 1.5)
        )
        axes.plot(counts, middle, color=style[0], linestyle=style[1], linewidth=style[2], label=name)
        low, high = np.clip([middle - error, middle + error], *SHOWN)
        axes.fill_between(counts, low, high, color=style[0], alpha=0.1, linewidth=0)
    axes.set(xscale="log", yscale="logit", xlabel="labels", ylabel="accuracy on images held out")
    axes.set_title(replayed.history)
    axes.set_xticks([m for m in MARKS if m <= means[RANDOM].labels[-1]])
    axes.set_yticks([t for t in TICKS if axes.get_ylim()[0] <= t <= axes.get_ylim()[1]])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8, title="largest area first", title_fontsize=8)
    figure.savefig(path, dpi=150)


def _cells(saving: Saving) -> tuple[str, ...]:
    labels = f"{saving.labels:.0f}" if math.isfinite(saving.labels) else "never"
    if saving.strategy == RANDOM:
        return labels, "1", f"{saving.area:.4f}", "", ""
    worst = f"{100 * saving.worst.value:+.1f} at {saving.worst_at}"
    return labels, _interval(saving.times_fewer, 1), f"{saving.area:.4f}", _interval(saving.gain, 100), worst


def _interval(interval: Interval, times: float) -> str:
    return f"{times * interval.value:.1f} ({times * interval.low:.1f} to {times * interval.high:.1f})"
