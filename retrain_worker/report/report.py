"""The way in: two arms and test labels in, one JSON document and one page out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from labelloop.extras import extras_named, missing_extra
from labelloop.model.head import Head
from retrain_worker.report.answers import PixelAnswers, look
from retrain_worker.report.document import document
from retrain_worker.report.findings import Explanations, Findings, JudgedImages
from retrain_worker.report.inputs import Inputs, classes_of
from retrain_worker.report.judging import compare, judge, measured
from retrain_worker.report.mistakes import mistakes
from retrain_worker.report.notes import notes
from retrain_worker.report.resampling import resample
from retrain_worker.report.samples import MISTAKES, most_confident_mistakes, to_explain

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Report:
    """What is kept of a run: ``json`` holds JSON's own types only, ``html`` is one file that needs no other."""

    json: dict[str, Any]
    html: str


def make_report(inputs: Inputs, looked: PixelAnswers | None = None) -> Report:
    """Look, measure, explain, write. What ``load`` and ``progress`` raise goes through, unreadable images aside.

    ``looked``: what `look` found on the same images and arms before, so that it need not be done again.
    """
    with extras_named():
        from retrain_worker.report.page import page  # matplotlib: a retrain needs it for nothing else

    findings = find(inputs, looked)
    report = Report(document(findings), page(findings))
    log.info("report", action="report", run=inputs.origin.run, judged=findings.judged, letters=len(report.html))
    return report


def find(inputs: Inputs, looked: PixelAnswers | None = None) -> Findings:
    """Everything there is to tell."""
    classes = classes_of(inputs)
    looked = looked or look(inputs, classes)
    judged = judge(inputs, looked, classes)
    resampled = resample(judged.probabilities, judged.truth, inputs.seed)
    challenger, *champion = measured(inputs, looked, judged, resampled, classes)
    wrong = most_confident_mistakes(judged)
    findings = Findings(
        inputs=inputs, classes=classes, judged=len(judged.uris), unreadable=looked.problems, challenger=challenger,
        champion=champion[0] if champion else None, compared=compare(judged, resampled), wrong=len(wrong),
        mistakes=mistakes(inputs, judged, wrong[:MISTAKES], classes), explained=_explained(inputs, judged, classes),
    )  # fmt: skip
    return replace(findings, notes=notes(findings))


def _explained(inputs: Inputs, judged: JudgedImages, classes: Sequence[str]) -> Explanations | None:
    """Of the challenger alone; None without pixels or for a head that has no gradient."""
    if not inputs.sees_pixels or not isinstance(inputs.challenger.head, Head):
        return None
    try:
        from retrain_worker.report.explanations import explain  # torch and Captum
    except ModuleNotFoundError as error:
        if not (missing := missing_extra(error)):
            raise
        log.warning("no heat maps in the report", action="report", run=inputs.origin.run, reason=str(missing))
        return None
    return explain(inputs, judged, to_explain(judged, inputs.seed), classes)
