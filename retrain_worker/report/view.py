"""Findings in, what the page's template shows out: words, rows and pictures, nothing left to decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labelloop.rules.intervals import Interval
from retrain_worker.report.drawing.canvas import Picture
from retrain_worker.report.drawing.class_figures import confusion_picture, recall_picture
from retrain_worker.report.drawing.figures import learning_picture, reliability_picture, robustness_picture
from retrain_worker.report.findings import ArmFindings, Findings
from retrain_worker.report.headline import headlines, percent, points, with_bounds
from retrain_worker.report.latency import Serving
from retrain_worker.report.measures import ClassMeasures
from retrain_worker.report.robustness import NOISE, Robustness

VERDICTS = {"promote": "Promoted", "hold": "Held back", "reject": "Rejected"}
NONE = "–"
LISTED = 30  # unreadable images on the page


@dataclass(frozen=True, slots=True)
class Table:
    """Cells are words; the first column names the row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def view(findings: Findings) -> dict[str, Any]:
    """What `page.html` asks for, by name."""
    inputs = findings.inputs
    return {
        "origin": inputs.origin, "verdict": inputs.verdict, "outcome": VERDICTS[inputs.verdict.outcome],
        "challenger": findings.challenger.name, "champion": findings.champion.name if findings.champion else None,
        "notes": findings.notes, "labels": len(inputs.uris), "judged": findings.judged,
        "headlines": headlines(findings),
        "compared": _compared(findings), "pictures": _pictures(findings), "learning": inputs.history is not None,
        "classes": class_table(findings), "mistakes": findings.mistakes, "wrong": findings.wrong,
        "explained": findings.explained, "robustness": robustness_table(findings), "serving": serving_table(findings),
        "curves": _curves(findings), "unreadable": _unreadable(findings), "provenance": provenance(findings),
        "percent": percent,
    }  # fmt: skip


def class_table(findings: Findings) -> Table | None:
    """None where nothing was judged."""
    ours = findings.challenger.measures
    theirs = findings.champion.measures if findings.champion else None
    if ours is None:
        return None
    names = (f"{findings.champion.name}: recall",) if findings.champion and theirs else ()
    head = ("class", "labels", "answers", "precision", "recall", "F1", *names)
    others = theirs.classes if theirs else ours.classes
    rows = zip(ours.classes, others, strict=True)
    return Table(head, tuple(_class_row(row, other if theirs else None) for row, other in rows))


def robustness_table(findings: Findings) -> Table | None:
    """None where nothing was disturbed."""
    arms = [arm for arm in (findings.challenger, findings.champion) if arm and arm.robustness]
    if not arms:
        return None
    names = ("accuracy", "against clean", "changed")
    head = ("disturbance", *(f"{arm.name}: {name}" for arm in arms for name in names))
    rows = zip(*(arm.robustness for arm in arms), strict=True)
    return Table(head, tuple((_disturbance(row[0]), *(cell for r in row for cell in _robust(r))) for row in rows))


def serving_table(findings: Findings) -> Table | None:
    """None where no backbone was at hand."""
    arms = [arm for arm in (findings.challenger, findings.champion) if arm and arm.serving]
    columns = [_serving(arm.serving) for arm in arms if arm.serving]
    if not columns:
        return None
    rows = tuple((label, *(column[label] for column in columns)) for label in columns[0])
    return Table(("", *(arm.name for arm in arms)), rows)


def provenance(findings: Findings) -> Table:
    """Where the run and its arms came from."""
    origin = findings.inputs.origin
    rows = [
        ("project", origin.project), ("run", f"{origin.run} ({origin.kind})"), ("made", origin.created_at),
        ("snapshot", origin.snapshot), ("configuration", origin.config), ("code", origin.code),
        ("seed", str(findings.inputs.seed)),
        *(row for arm in (findings.challenger, findings.champion) if arm for row in _backbone(arm)),
        *_training(findings.inputs.history or {}),
    ]  # fmt: skip
    return Table(("", ""), tuple(rows))


def _class_row(row: ClassMeasures, champion: ClassMeasures | None) -> tuple[str, ...]:
    name = row.name if row.known else f"{row.name} (not among its classes)"
    cells = (name, str(row.support), str(row.predicted), percent(row.precision), _interval(row.recall), percent(row.f1))
    return (*cells, _interval(champion.recall)) if champion else cells


def _interval(interval: Interval | None) -> str:
    return with_bounds(percent(interval.value), percent(interval.low), percent(interval.high)) if interval else NONE


def _disturbance(row: Robustness) -> str:
    return f"{row.kind}, σ {row.severity:g} " + ("of 255" if row.kind == NOISE else "pixels")


def _robust(row: Robustness) -> tuple[str, ...]:
    return _interval(row.accuracy), points(-row.drop), percent(row.changed)


def _serving(serving: Serving) -> dict[str, str]:
    timings = {
        f"{'one image' if t.images == 1 else f'{t.images} images at once'}": (
            f"{t.median_ms:.1f} ms median, {t.p95_ms:.1f} ms 95th percentile of {t.repeats}"
        )
        for t in serving.timings
    }
    return {
        **timings, "measured on": f"{serving.device}, {_threads(serving.threads)}",
        "parameters": f"{serving.parameters:,}", "weights": _size(serving.weight_bytes),
        "head": _size(serving.head_bytes),
    }  # fmt: skip


def _threads(n: int) -> str:
    return "1 thread" if n == 1 else f"{n} threads"


def _size(n: int) -> str:
    return f"{n / 1e6:.1f} MB" if n >= 1e5 else f"{n / 1e3:.1f} kB"


def _backbone(arm: ArmFindings) -> list[tuple[str, str]]:
    record = arm.backbone
    if record is None:
        return [(arm.name, "its backbone was not looked at")]
    size = record.preprocessing.get("size", "?")
    return [(arm.name, f"{record.id}, {size} pixels, {record.provenance}")]


def _training(history: Any) -> list[tuple[str, str]]:
    if not history.get("epochs"):
        return []
    resumed = f", resumed after epoch {history['resumed_at']}" if history.get("resumed_at") else ""
    best, precision = history.get("best"), history.get("precision", "?")
    return [("training", f"{len(history['epochs'])} epochs, the best was {best}, in {precision}{resumed}")]


def _compared(findings: Findings) -> str | None:
    if findings.compared is None or findings.champion is None:
        return None
    accuracy = findings.compared.accuracy
    return (
        f"On the same {accuracy.n} labels the two answer {accuracy.changed} images differently: "
        f"{findings.challenger.name} alone is right on {findings.compared.gained}, "
        f"{findings.champion.name} alone on {findings.compared.lost}."
    )


def _pictures(findings: Findings) -> Sequence[Picture]:
    """Of accuracy; none where nothing was judged."""
    ours = findings.challenger.measures
    if ours is None:
        return []
    challenger = (findings.challenger.name, ours)
    theirs = findings.champion.measures if findings.champion else None
    champion = (findings.champion.name, theirs) if findings.champion and theirs else None
    drawn = [confusion_picture(*challenger), *([confusion_picture(*champion)] if champion else [])]
    return [*drawn, reliability_picture(challenger, champion), recall_picture(challenger, champion)]


def _unreadable(findings: Findings) -> list[str]:
    """The JSON document has them all."""
    lines = [f"{uri}: {problem}" for uri, problem in findings.unreadable.items()]
    return lines[:LISTED] + ([f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else [])


def _curves(findings: Findings) -> dict[str, Picture | None]:
    champion = (findings.champion.name, findings.champion.robustness) if findings.champion else None
    return {
        "learning": learning_picture(findings.inputs.history or {}),
        "robustness": robustness_picture((findings.challenger.name, findings.challenger.robustness), champion),
    }
