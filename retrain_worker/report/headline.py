"""Findings in, the few figures that matter most out, with intervals and beside the champion's, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retrain_worker.report.findings import ArmFindings, Compared, Findings
from retrain_worker.report.measures import Measures
from retrain_worker.report.resampling import Bounds

PERCENT = "\u00a0%"  # stays on the line of its number


@dataclass(frozen=True, slots=True)
class Headline:
    """One figure of both arms."""

    name: str
    meaning: str
    challenger: str
    champion: str | None
    difference: str | None
    better: str  # better | worse | unclear: whether the interval of the difference leaves out 0


@dataclass(frozen=True, slots=True)
class _Figure:
    key: str
    name: str
    meaning: str
    is_share: bool = True
    less_is_better: bool = False


FIGURES = (
    _Figure("accuracy", "Accuracy", "answers that are right"),
    _Figure("balanced_accuracy", "Balanced accuracy", "mean recall: every class counts alike"),
    _Figure("macro_precision", "Macro precision", "mean over classes of answers that are right"),
    _Figure("macro_f1", "Macro F1", "mean over classes of precision and recall together"),
    _Figure("log_loss", "Log loss", "less is better; sure mistakes cost most", is_share=False, less_is_better=True),
    _Figure("ece", "ECE", "less is better; gap between how sure and how right", less_is_better=True),
)


def headlines(findings: Findings) -> list[Headline]:
    """Empty where nothing was judged."""
    ours = findings.challenger.measures
    if ours is None:
        return []
    return [_headline(figure, findings, ours) for figure in FIGURES] + _top(findings, ours)


def percent(value: float | None) -> str:
    """A share in [0, 1]."""
    return "–" if value is None else f"{100 * value:.1f}{PERCENT}"


def points(value: float) -> str:
    """A difference of shares, in percentage points."""
    return f"{100 * value:+.1f}".replace("-", "−") + " points"


def with_bounds(value: str, low: str, high: str) -> str:
    """Both bounds with one unit."""
    return f"{value} ({low.removesuffix(PERCENT)} to {high})"


def _headline(figure: _Figure, findings: Findings, ours: Measures) -> Headline:
    champion = findings.champion
    theirs = champion.measures if champion else None
    text = _told(figure, findings.challenger, ours)
    if champion is None or theirs is None or findings.compared is None:
        return Headline(figure.name, figure.meaning, text, None, None, "unclear")
    bounds = _bounds(figure, findings.compared)
    difference = _value(figure, ours) - _value(figure, theirs)
    return Headline(
        figure.name, figure.meaning, text, _told(figure, champion, theirs),
        _difference(figure, difference, bounds), _better(bounds, less_is_better=figure.less_is_better),
    )  # fmt: skip


def _top(findings: Findings, ours: Measures) -> list[Headline]:
    theirs = dict(findings.champion.measures.top) if findings.champion and findings.champion.measures else {}
    return [
        Headline(
            f"Top {k}", f"the label is among the {k} likeliest", percent(value),
            percent(theirs.get(k)) if findings.champion else None,
            points(value - theirs[k]) if k in theirs else None, "unclear",
        )
        for k, value in ours.top
    ]  # fmt: skip


def _value(figure: _Figure, measures: Measures) -> float:
    return measures.accuracy.value if figure.key == "accuracy" else float(getattr(measures, figure.key))


def _told(figure: _Figure, arm: ArmFindings, measures: Measures) -> str:
    write = _writer(figure)
    bounds = arm.intervals.get(figure.key)
    if figure.key == "accuracy":
        bounds = (measures.accuracy.low, measures.accuracy.high)
    value = write(_value(figure, measures))
    return with_bounds(value, write(bounds[0]), write(bounds[1])) if bounds else value


def _writer(figure: _Figure) -> Callable[[float], str]:
    return percent if figure.is_share else lambda value: f"{value:.3f}"


def _bounds(figure: _Figure, compared: Compared) -> Bounds | None:
    if figure.key == "accuracy":
        return compared.accuracy.low, compared.accuracy.high
    return compared.intervals.get(figure.key)


def _difference(figure: _Figure, value: float, bounds: Bounds | None) -> str:
    parts: Sequence[float] = (value, *bounds) if bounds else (value,)
    if figure.is_share:
        first, *rest = (points(v).removesuffix(" points") for v in parts)
        return f"{first} points" + (f" ({rest[0]} to {rest[1]})" if rest else "")
    first, *rest = (f"{v:+.3f}".replace("-", "−") for v in parts)
    return first + (f" ({rest[0]} to {rest[1]})" if rest else "")


def _better(bounds: Bounds | None, *, less_is_better: bool) -> str:
    if bounds is None or bounds[0] <= 0 <= bounds[1]:
        return "unclear"
    return "better" if (bounds[0] > 0) != less_is_better else "worse"
