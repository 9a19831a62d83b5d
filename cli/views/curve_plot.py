"""A picture of a learning curve and its forecast (matplotlib), as PNG or SVG by the file's name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from cli.views.tune_plot import ACCENT, FAINT, INK
from labelloop.errors import LabelloopError
from operations.models.curve import CurvePage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from labelloop.rules.learning_curve import ForecastCurve

FORMS = (".png", ".svg")


def plot_learning_curve(page: CurvePage, path: Path) -> None:
    """LabelloopError where the name ends in neither .png nor .svg."""
    if path.suffix not in FORMS:
        raise LabelloopError(f"{path.name}: a picture is {' or '.join(FORMS)}")
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    current = page.kept.current
    others = [p for p in page.kept.points if p not in current and p.judged]
    if others:
        axes.scatter([p.labels for p in others], [p.accuracy or 0.0 for p in others], facecolors="none",
                     edgecolors=FAINT, label="versions of another backbone or head")  # fmt: skip
    axes.scatter([p.labels for p in current], [p.accuracy or 0.0 for p in current], color=INK, s=18, zorder=3,
                 label=f"versions, on {page.kept.images} random labels")  # fmt: skip
    if page.outlook.curve:
        _band(axes, page.outlook.curve)
    if page.outlook.target is not None:
        axes.axhline(page.outlook.target, color=INK, linestyle="--", linewidth=1, label="target")
    axes.set(xlabel="train labels", ylabel="accuracy", title=page.outlook.sentence)
    axes.title.set_wrap(True)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)


def _band(axes: Axes, curve: ForecastCurve) -> None:
    """From now until the labels have doubled."""
    more = np.linspace(0, curve.now / curve.share, 60)
    points, labels = curve.track(more.tolist()), curve.now + more * curve.share
    axes.plot(labels, [f.middle for f in points], color=ACCENT, label="the curve continues")
    for low, high, what, alpha in (("low", "high", "80 %", 0.3), ("lowest", "highest", "95 %", 0.15)):
        axes.fill_between(labels, [getattr(f, low) for f in points], [getattr(f, high) for f in points], color=ACCENT,
                          alpha=alpha, linewidth=0, label=what)  # fmt: skip
