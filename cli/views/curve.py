"""A learning curve in, a page for a terminal out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from labelloop.records.curve import Point
from labelloop.rules.learning_curve import ForecastCurve
from labelloop.rules.stop_advice import Act, Advice, Forecast
from operations.models.curve import CurvePage

WIDTH, HEIGHT = 64, 16
ROWS = 12  # versions in the table
STYLES = {Act.STOP: "bold green", Act.GO_ON: "bold cyan", Act.CANNOT_TELL: "bold yellow"}
LEGEND = "● version  ○ other backbone or head  · curve  ░ 80 % sure  ─ target"


def curve_view(page: CurvePage) -> RenderableType:
    """Picture, points, forecast, advice."""
    outlook, kept = page.outlook, page.kept
    parts: list[RenderableType] = [Text(f"{page.title}: {outlook.sentence}", style="bold")]
    if kept.images:
        parts += [Text(), *picture(kept.points, kept.current, outlook.curve, outlook.target), Text(), _points(page)]
    if outlook.ahead:
        parts += [Text(), _ahead(outlook.ahead)]
    parts += [Text(), *_advice(outlook.advice), Text(), Text(_small_print(page), style="dim")]
    return Group(*parts)


def _points(page: CurvePage) -> Table:
    """The newest versions, or of many an even selection."""
    table = Table("version", "kind", "train labels", "right", "of", "backbone", "made", box=None)
    points = page.kept.points
    chosen = np.unique(np.linspace(0, len(points) - 1, min(ROWS, len(points))).round().astype(int))
    for point in (points[i] for i in chosen):
        right = f"{point.accuracy:.3f}" if point.accuracy is not None else ""
        mark = " ● live" if point.version == page.kept.live else ""
        table.add_row(point.version + mark, point.kind, str(point.labels), right, str(point.judged), point.backbone,
                      point.at[:16])  # fmt: skip
    return table


def _ahead(forecasts: Sequence[Forecast]) -> Table:
    table = Table("more labels", "right", "80 %", "95 %", "gain in points", "80 %", box=None)
    for forecast in forecasts:
        what, gain = forecast.accuracy, forecast.gain
        table.add_row(
            f"+{forecast.more}", f"{what.middle:.3f}", f"{what.low:.3f} to {what.high:.3f}",
            f"{what.lowest:.3f} to {what.highest:.3f}", f"{100 * gain.middle:+.1f}",
            f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}",
        )  # fmt: skip
    return table


def _advice(advice: Advice) -> Iterable[Text]:
    first, *others = advice.reasons
    yield Text.assemble((str(advice.act), STYLES[advice.act]), f": {first}")
    for reason in others:
        yield Text(f"  {reason}")
    for other in advice.instead:
        yield Text(f"  instead: {other}")


def _small_print(page: CurvePage) -> str:
    kept = page.kept
    return (
        f"As of {kept.at[:16]}, {kept.live} live. Every version is tested on the same {kept.test} labels of the "
        f"test split and {kept.audit} of the audit split: drawn at random, given blind, never trained on. Retrains are "
        "chosen by the test split, which flatters them a little. Labels to come include the random quota."
    )


# --- the picture


@dataclass(slots=True)
class _Canvas:
    """Characters; (0, 0) is below and left. Later marks stand over earlier ones."""

    left: float
    right: float
    low: float
    high: float
    cells: list[list[str]] = field(default_factory=lambda: [[" "] * WIDTH for _ in range(HEIGHT)])

    def column(self, labels: float) -> int:
        return round((labels - self.left) / (self.right - self.left) * (WIDTH - 1))

    def row(self, accuracy: float) -> int:
        share = (accuracy - self.low) / (self.high - self.low)
        return min(max(round(share * (HEIGHT - 1)), 0), HEIGHT - 1)

    def mark(self, column: int, row: int, sign: str) -> None:
        self.cells[HEIGHT - 1 - row][column] = sign

    def lines(self) -> Iterable[Text]:
        for i, cells in enumerate(self.cells):
            value = self.high - i / (HEIGHT - 1) * (self.high - self.low)
            yield Text(f"{100 * value:5.0f} % │" if i % 5 == 0 else "        │", style="dim").append(
                "".join(cells), style="default"
            )
        yield Text("        └" + "─" * WIDTH, style="dim")
        begin, end = f"{self.left:.0f}", f"{self.right:.0f}"
        yield Text(f"         {begin}{'train labels'.center(WIDTH - len(begin) - len(end))}{end}", style="dim")


def picture(
    points: Sequence[Point], current: Sequence[Point], curve: ForecastCurve | None, target: float | None
) -> Iterable[Text]:
    """Accuracy over train labels, the forecast as a band."""
    shown = [(p.labels, p.accuracy, "●" if p in current else "○") for p in points if p.accuracy is not None]
    if not shown:
        return
    ahead = _band(curve) if curve else []
    heights = [a for _, a, _ in shown] + [v for band in ahead for v in band[1:]] + ([target] if target else [])
    reach = max([labels for labels, *_ in shown] + [band[0] for band in ahead])
    canvas = _Canvas(0.0, max(reach, 1.0), max(min(heights) - 0.02, 0.0), min(max(heights) + 0.02, 1.0))
    if target is not None:
        for column in range(WIDTH):
            canvas.mark(column, canvas.row(target), "─")
    for labels, low, middle, high in ahead:
        for row in range(canvas.row(low), canvas.row(high) + 1):
            canvas.mark(canvas.column(labels), row, "░")
        canvas.mark(canvas.column(labels), canvas.row(middle), "·")
    for labels, accuracy, sign in sorted(shown, key=lambda s: s[2], reverse=True):
        canvas.mark(canvas.column(labels), canvas.row(accuracy), sign)
    yield from canvas.lines()
    yield Text(f"         {LEGEND}", style="dim")


def _band(curve: ForecastCurve) -> list[tuple[float, float, float, float]]:
    """(train labels, low, middle, high) of the curve from now until it has doubled."""
    until = curve.now / curve.share
    more = np.linspace(0, until, WIDTH // 2 + 1)
    points = curve.track(more.tolist())
    return [(curve.now + m * curve.share, f.low, f.middle, f.high) for m, f in zip(more, points, strict=True)]
