"""Figures by class in, pictures out; each says in words, too, what it shows. Of many classes those that matter."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from retrain_worker.report.drawing.canvas import (
    CHALLENGER,
    CHAMPION,
    IN_LEGEND,
    INK,
    POINTS,
    SIZE,
    WIDTH,
    Picture,
    drawing,
    inches,
    picture,
    plot,
    short,
)
from retrain_worker.report.measures import ClassMeasures, Ints, Measures

MOST = 40  # classes in one picture
CELLS = ((6, 0.52), (12, 0.40), (20, 0.34), (MOST, 0.30))  # classes up to, inches of a cell
DARK = 0.55  # share from which a cell wants white letters

Named = tuple[str, Measures]


def confusion_picture(name: str, measures: Measures) -> Picture:
    """Rows sum to 1 in colour; the numbers are counts."""
    matrix = np.array(measures.confusion, dtype=np.int64)
    shown = _most_confused(matrix)
    names = [short(measures.classes[k].name) for k in shown]
    with drawing():
        return picture(_confusion(matrix[np.ix_(shown, shown)], names), _confusion_words(name, measures, len(shown)))


def _confusion(counts: Ints, names: Sequence[str]) -> Figure:
    n = len(names)
    side = max(n * next(inch for most, inch in CELLS if n <= most), 1.6)
    margin = max(0.5, max(map(inches, names)) + 0.12) + 0.3
    figure = Figure((margin + side + 0.15, margin + side + 0.1))
    axes = plot(figure, margin, margin, side, side)
    axes.set_xlim(-0.5, n - 0.5)
    axes.set_ylim(n - 0.5, -0.5)
    _fill(axes, counts, side / n)
    axes.set_xticks(range(n), names, rotation=90)
    axes.set_yticks(range(n), names)
    axes.tick_params(length=0)
    _lines_between(axes, n)
    figure.text(0.06 / figure.get_figwidth(), 1 - (0.1 + side / 2) / figure.get_figheight(), "label",
                rotation=90, va="center")  # fmt: skip
    figure.text((margin + side / 2) / figure.get_figwidth(), 0.06 / figure.get_figheight(), "answer", ha="center")
    return figure


def _lines_between(axes: Axes, n: int) -> None:
    axes.grid(visible=False)
    axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axes.grid(which="minor")
    axes.tick_params(which="minor", length=0)


def _fill(axes: Axes, counts: Ints, cell: float) -> None:
    """Counts as large as a cell of so many inches allows; nothing where it is 0, so that mistakes stand out."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(SIZE, cell * POINTS * 0.9 / (0.64 * len(str(int(counts.max(initial=1))))))
    for row, column in np.argwhere(counts > 0):
        share = float(shares[row, column])
        colour = matplotlib.colormaps["Blues"](0.08 + 0.92 * share)
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=0.5))
        ink = "white" if share > DARK else INK
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=size, color=ink)


def _most_confused(counts: Ints) -> Ints:
    """Places of at most `MOST` classes, those with the most mistakes, in their order."""
    wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    return np.sort(np.argsort(-wrong, kind="stable")[:MOST])


def _confusion_words(name: str, measures: Measures, shown: int) -> str:
    of = len(measures.classes)
    some = f"the {shown} of {of} classes with the most mistakes" if shown < of else "all classes"
    return f"Confusion matrix of {name}, {some}: labels in rows, answers in columns, counts in the cells."


def recall_picture(challenger: Named, champion: Named | None) -> Picture:
    """A bar per class with its interval, the champion's beneath it."""
    rows = _weakest(challenger[1].classes)
    others = {row.name: row for row in champion[1].classes} if champion else {}
    left = max(0.5, *(inches(short(row.name)) + 0.15 for row in rows))
    height = (0.36 if champion else 0.26) * len(rows)
    with drawing():
        figure = Figure((max(WIDTH, left + 3.0), height + 1.05))
        axes = plot(figure, left, 0.5, figure.get_figwidth() - left - 0.25, height)
        _bars(axes, rows, -0.19 if champion else 0.0, CHALLENGER, challenger[0])
        if champion:
            _bars(axes, [others[row.name] for row in rows], 0.19, CHAMPION, champion[0])
        _recall_axes(axes, rows)
        figure.legend(loc="upper left", ncols=2)
        return picture(figure, _recall_words(challenger, len(rows)))


def _bars(axes: Axes, rows: Sequence[ClassMeasures], shift: float, colour: str, label: str) -> None:
    places = [k + shift for k, row in enumerate(rows) if row.recall]
    recalls = [row.recall for row in rows if row.recall]
    values = np.array([r.value for r in recalls])
    spread = np.abs(np.array([[r.low for r in recalls], [r.high for r in recalls]]) - values)
    axes.barh(places, values, height=0.36, color=colour, alpha=0.8, label=short(label, IN_LEGEND))
    axes.errorbar(values, places, xerr=spread, fmt="none", ecolor=INK, elinewidth=0.9, capsize=2)


def _recall_axes(axes: Axes, rows: Sequence[ClassMeasures]) -> None:
    axes.set_yticks(range(len(rows)), [short(row.name) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.0)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("recall, with 95 % interval")
    axes.grid(visible=False, axis="y")
    for k, row in enumerate(rows):
        if not row.support:
            axes.text(0.01, k, "no test labels", va="center", fontsize=SIZE - 1, style="italic")


def _weakest(rows: Sequence[ClassMeasures]) -> list[ClassMeasures]:
    """All, or of many the `MOST` of lowest recall; in their order."""
    order = sorted(range(len(rows)), key=lambda k: (_recall_of(rows[k]), k))[:MOST]
    return [rows[k] for k in sorted(order)]


def _recall_of(row: ClassMeasures) -> float:
    return row.recall.value if row.recall else 2.0


def _recall_words(challenger: Named, shown: int) -> str:
    name, measures = challenger
    of = len(measures.classes)
    some = f"the {shown} of {of} classes with the lowest" if shown < of else "each class's"
    return f"Recall per class of {name}: {some} recall with its 95 % interval."
