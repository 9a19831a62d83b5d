"""Pictures of a search and of a range test (matplotlib), as PNG or SVG by the file's name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from labelloop.store.lr_curves import LrCurve
from operations.models.tune import StudyResults, params_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, ACCENT, FAINT = "#1f2937", "#2563eb", "#9ca3af"


def plot_study(results: StudyResults, path: Path) -> None:
    """Accuracy against latency, the best marked; and for a search the best so far by trial."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _against_latency(left, results)
    _by_trial(right, results)
    figure.savefig(path, dpi=150)


def _against_latency(axes: Axes, results: StudyResults) -> None:
    for trial in results.trials:
        if trial.accuracy is None or "ms" not in trial.figures:
            continue
        is_best = bool(results.best and results.best.number == trial.number)
        size = 20 + 6 * trial.figures["bytes"] / 1e6
        axes.scatter(trial.figures["ms"], trial.accuracy, s=size, color=ACCENT if is_best else FAINT, alpha=0.8)
        axes.annotate(_name(trial.params), (trial.figures["ms"], trial.accuracy), xytext=(6, 6),
                      textcoords="offset points", fontsize=8, color=INK)  # fmt: skip
    axes.set(xlabel="milliseconds per image", ylabel="accuracy on the validation part",
             title="accuracy against latency (area: megabytes)")  # fmt: skip
    axes.margins(0.15)


def _name(params: object) -> str:
    text = params_text(params)  # type: ignore[arg-type]
    return text if len(text) <= 40 else text[:37] + "…"


def _by_trial(axes: Axes, results: StudyResults) -> None:
    done = [t for t in results.trials if t.accuracy is not None]
    for state, color in (("complete", ACCENT), ("pruned", FAINT)):
        some = [t for t in done if t.state == state]
        axes.scatter([t.number for t in some], [t.accuracy or 0.0 for t in some], color=color, label=state, s=24)
    leaders, top = [], 0.0
    for trial in sorted(done, key=lambda t: t.number):
        top = max(top, (trial.accuracy or 0.0) if trial.state == "complete" else top)
        leaders.append((trial.number, top))
    if leaders:
        axes.step(*zip(*leaders, strict=True), where="post", color=INK, linewidth=1, label="best so far")
    axes.set(xlabel="trial", ylabel="accuracy on the validation part", title="search")
    if done:
        axes.legend()


def plot_curve(curve: LrCurve, path: Path) -> None:
    """The loss over the learning rate, with the suggestion."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, color=FAINT, linewidth=0.8, label="loss of each step")
    axes.plot(curve.rates, curve.smooth, color=ACCENT, label="smoothed")
    if curve.suggestion is not None:
        axes.axvline(curve.suggestion, color=INK, linestyle="--", label=f"suggestion {curve.suggestion:.2g}")
    axes.set(xscale="log", xlabel="learning rate of the layer on top", ylabel="loss", title="range test")
    axes.legend()
    figure.savefig(path, dpi=150)
