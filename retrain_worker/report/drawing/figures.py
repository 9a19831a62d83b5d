"""Figures of a report in, pictures out; each says in words, too, what it shows. Of classes: `class_figures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from retrain_worker.report.drawing.canvas import (
    CHALLENGER,
    CHAMPION,
    IN_LEGEND,
    INK,
    SIZE,
    WIDTH,
    Picture,
    drawing,
    picture,
    plot,
    short,
)
from retrain_worker.report.measures import Bin, Measures
from retrain_worker.report.robustness import BLUR, NOISE, Robustness

LEFT, RIGHT = 0.76, 0.22  # inches of margin

Named = tuple[str, Measures]


def reliability_picture(challenger: Named, champion: Named | None) -> Picture:
    """Accuracy against confidence above, how many answers of the challenger lie there below."""
    name, measures = challenger
    with drawing():
        figure = Figure((WIDTH, 4.4))
        axes = plot(figure, LEFT, 1.7, WIDTH - LEFT - RIGHT, 2.3)
        axes.plot((0, 1), (0, 1), color=INK, linewidth=0.8, linestyle=":", label="perfect calibration")
        _dots(axes, measures.bins, CHALLENGER, "o", name)
        if champion:
            _dots(axes, champion[1].bins, CHAMPION, "s", champion[0])
        _percent(axes, "accuracy")
        axes.set_xlim(0, 1)
        axes.tick_params(labelbottom=False)
        figure.legend(*axes.get_legend_handles_labels(), loc="upper left", ncols=3, columnspacing=1.2)
        _counts(figure, measures.bins)
        words = f"Reliability diagram of {name}: accuracy by confidence."
        return picture(figure, f"{words} ECE {measures.ece:.3f} on {measures.n} labels.")


def _dots(axes: Axes, bins: Sequence[Bin], colour: str, marker: str, label: str) -> None:
    there = [b for b in bins if b.count]
    sure, right = [b.confidence or 0 for b in there], [b.accuracy or 0 for b in there]
    axes.plot(sure, right, color=colour, marker=marker, markersize=4, linewidth=1, label=short(label, IN_LEGEND))


def _counts(figure: Figure, bins: Sequence[Bin]) -> None:
    axes = plot(figure, LEFT, 0.5, WIDTH - LEFT - RIGHT, 1.0)
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
    axes.set_xlabel("confidence")
    _label(axes, "answers")


def learning_picture(history: Mapping[str, Any]) -> Picture | None:
    """Losses above, validation accuracy below, by epoch; None for a history without epochs."""
    epochs = history.get("epochs") or ()
    if not epochs:
        return None
    best = int(history.get("best") or 0)
    with drawing():
        figure = Figure((WIDTH, 4.4))
        upper = plot(figure, LEFT, 2.35, WIDTH - LEFT - RIGHT, 1.65)
        _curve(upper, epochs, "loss", CHALLENGER, "o", "train part")
        _curve(upper, epochs, "validation_loss", CHAMPION, "s", "validation part")
        lower = plot(figure, LEFT, 0.5, WIDTH - LEFT - RIGHT, 1.55)
        _curve(lower, epochs, "validation_accuracy", CHAMPION, "s", "")
        _epoch_axes(upper, epochs, best)
        _epoch_axes(lower, epochs, best)
        _label(upper, "loss")
        upper.tick_params(labelbottom=False)
        lower.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        lower.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], min_n_ticks=2))
        _label(lower, "accuracy")
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
            axes = plot(figure, LEFT, bottom, WIDTH - LEFT - RIGHT, 1.5)
            _severities(axes, kind, *challenger, CHALLENGER, "o")
            if champion and champion[1]:
                _severities(axes, kind, *champion, CHAMPION, "s")
            _percent(axes, "accuracy")
            axes.set_xlabel(words)
        figure.legend(*axes.get_legend_handles_labels(), loc="upper left", ncols=2)
        return picture(figure, "Accuracy on disturbed copies of all readable test images, by severity.")


def _severities(axes: Axes, kind: str, name: str, rows: Sequence[Robustness], colour: str, marker: str) -> None:
    of_kind = [row for row in rows if row.kind == kind]
    clean = of_kind[0].clean
    shares = [clean, *(row.accuracy for row in of_kind)]
    values = np.array([share.value for share in shares])
    spread = np.abs(np.array([[share.low for share in shares], [share.high for share in shares]]) - values)
    axes.errorbar((0, *(row.severity for row in of_kind)), values, yerr=spread, color=colour, marker=marker,
                  markersize=4, linewidth=1.2, capsize=2, label=short(name, IN_LEGEND))  # fmt: skip


def _percent(axes: Axes, label: str) -> None:
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _label(axes, label)


def _label(axes: Axes, text: str) -> None:
    """At a fixed place: where tick labels are wide, it would leave the picture."""
    axes.set_ylabel(text)
    axes.yaxis.set_label_coords((0.2 - LEFT) / (WIDTH - LEFT - RIGHT), 0.5)
