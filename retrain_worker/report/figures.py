"""Figures of a report in, pictures out; each says in words, too, what it shows. Of classes: `class_figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from retrain_worker.report.canvas import CHALLENGER, CHAMPION, INK, SIZE, WIDTH, Picture, drawing, picture, plot, short
from retrain_worker.report.measures import Bin, Measures
from retrain_worker.report.robustness import BLUR, NOISE, Robustness

Named = tuple[str, Measures]


def reliability_picture(challenger: Named, champion: Named | None) -> Picture:
    """Accuracy against sureness above, how many answers lie there below."""
    name, measures = challenger
    with drawing():
        figure = Figure((WIDTH, 4.4))
        axes = plot(figure, 0.62, 1.75, WIDTH - 0.8, 2.4)
        axes.plot((0, 1), (0, 1), color=INK, linewidth=0.8, linestyle=":", label="as sure as right")
        there = [b for b in measures.bins if b.count]
        axes.bar([b.low for b in there], [b.accuracy or 0 for b in there], width=0.1, align="edge",
                 color=CHALLENGER, alpha=0.35, edgecolor=CHALLENGER, label=short(name))  # fmt: skip
        _dots(axes, measures.bins, CHALLENGER, "o", "")
        if champion:
            _dots(axes, champion[1].bins, CHAMPION, "s", short(champion[0]))
        _percent(axes, "right")
        axes.set_xlim(0, 1)
        axes.tick_params(labelbottom=False)
        axes.legend(loc="upper left")
        _counts(figure, measures.bins)
        words = f"Reliability diagram of {name}: share of right answers by sureness."
        return picture(figure, f"{words} ECE {measures.ece:.3f} on {measures.n} labels.")


def _dots(axes: Axes, bins: Sequence[Bin], colour: str, marker: str, label: str) -> None:
    there = [b for b in bins if b.count]
    sure, right = [b.confidence or 0 for b in there], [b.accuracy or 0 for b in there]
    axes.plot(sure, right, color=colour, marker=marker, markersize=4, linewidth=1, label=label or None)


def _counts(figure: Figure, bins: Sequence[Bin]) -> None:
    axes = plot(figure, 0.62, 0.5, WIDTH - 0.8, 1.0)
    most = max(b.count for b in bins)
    axes.bar(
        [b.low for b in bins], [b.count for b in bins], width=0.1, align="edge", color="#9aa5b1", edgecolor="white"
    )
    for b in bins:
        if b.count:
            axes.text(b.low + 0.05, b.count + most * 0.04, str(b.count), ha="center", va="bottom", fontsize=SIZE - 1.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, most * 1.3)
    axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("sureness")
    axes.set_ylabel("answers")


def learning_picture(history: Mapping[str, Any]) -> Picture | None:
    """Losses above, validation accuracy below, by epoch; None for a history without epochs."""
    epochs = history.get("epochs") or ()
    if not epochs:
        return None
    best = int(history.get("best") or 0)
    with drawing():
        figure = Figure((WIDTH, 4.4))
        upper = plot(figure, 0.62, 2.35, WIDTH - 0.8, 1.75)
        _curve(upper, epochs, "loss", CHALLENGER, "o", "train part")
        _curve(upper, epochs, "validation_loss", CHAMPION, "s", "validation part")
        lower = plot(figure, 0.62, 0.5, WIDTH - 0.8, 1.5)
        _curve(lower, epochs, "validation_accuracy", CHAMPION, "s", "")
        _epoch_axes(upper, epochs, best)
        _epoch_axes(lower, epochs, best)
        upper.set_ylabel("loss")
        upper.tick_params(labelbottom=False)
        lower.yaxis.set_major_formatter(PercentFormatter(1))
        lower.set_ylabel("accuracy")
        lower.set_xlabel("epoch")
        figure.legend(*upper.get_legend_handles_labels(), loc="upper left", ncols=3, columnspacing=1.2)
        return picture(figure, f"Learning curves over {len(epochs)} epochs, the best was number {best}.")


def _curve(axes: Axes, epochs: Sequence[Mapping[str, Any]], field: str, colour: str, marker: str, label: str) -> None:
    points = [(e["number"], e[field]) for e in epochs if e.get(field) is not None and np.isfinite(e[field])]
    if points:
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=3.5, linewidth=1.2, label=label)
    else:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", style="italic")


def _epoch_axes(axes: Axes, epochs: Sequence[Mapping[str, Any]], best: int) -> None:
    axes.set_xlim(epochs[0]["number"] - 0.5, epochs[-1]["number"] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    if best:
        axes.axvline(best, color=INK, linewidth=0.9, linestyle="--", label="best epoch")


def robustness_picture(
    challenger: tuple[str, Sequence[Robustness]], champion: tuple[str, Sequence[Robustness]] | None
) -> Picture | None:
    """Accuracy against severity, noise above and blur below; None where nothing was disturbed."""
    if not challenger[1]:
        return None
    with drawing():
        figure = Figure((WIDTH, 4.7))
        panels = (
            (NOISE, 2.75, "noise, standard deviation in 8-bit steps"),
            (BLUR, 0.5, "blur, standard deviation in pixels"),
        )
        for kind, bottom, words in panels:
            axes = plot(figure, 0.62, bottom, WIDTH - 0.8, 1.55)
            _severities(axes, kind, *challenger, CHALLENGER, "o")
            if champion and champion[1]:
                _severities(axes, kind, *champion, CHAMPION, "s")
            _percent(axes, "right")
            axes.set_xlabel(words)
        figure.legend(*axes.get_legend_handles_labels(), loc="upper left", ncols=2)
        return picture(figure, "Accuracy on disturbed copies of all readable test images, by severity.")


def _severities(axes: Axes, kind: str, name: str, rows: Sequence[Robustness], colour: str, marker: str) -> None:
    found = [row for row in rows if row.kind == kind]
    clean = found[0].accuracy.value + found[0].drop
    values = np.array([clean, *(row.accuracy.value for row in found)])
    low = np.array([clean, *(row.accuracy.low for row in found)])
    high = np.array([clean, *(row.accuracy.high for row in found)])
    axes.errorbar((0, *(row.severity for row in found)), values, yerr=(values - low, high - values), color=colour,
                  marker=marker, markersize=4, linewidth=1.2, capsize=2, label=short(name))  # fmt: skip


def _percent(axes: Axes, label: str) -> None:
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylabel(label)
