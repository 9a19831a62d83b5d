"""Findings in, what a reader must know before believing them out, in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from retrain_worker.report.findings import Findings
from retrain_worker.report.measures import Measures

FEW = 100  # test labels below which an accuracy is hardly known
FEW_OF_CLASS = 10
NAMED = 8  # names in one sentence


def notes(findings: Findings) -> tuple[str, ...]:
    """Sentences, the most important first."""
    measures = findings.challenger.measures
    about = (*_labels(measures), *_classes(measures), *_comparison(findings)) if measures else _nothing(findings)
    return (*about, *_unreadable(findings), *_pixels(findings))


def _nothing(findings: Findings) -> list[str]:
    if findings.inputs.uris:
        return ["None of the test images could be read, so this page has no accuracy."]
    return [
        "There are no test labels yet, so this page has no accuracy. They come by themselves: a random "
        "share of the images that people label is kept for testing and never trains."
    ]


def _labels(measures: Measures) -> list[str]:
    if measures.n >= FEW:
        return []
    low, high = (round(100 * bound) for bound in (measures.accuracy.low, measures.accuracy.high))
    return [
        f"Little evidence: {_count(measures.n, 'test label')}. The true accuracy may lie anywhere between {low} and "
        f"{high} %, and every other figure is as uncertain."
    ]


def _classes(measures: Measures) -> list[str]:
    none = [row.name for row in measures.classes if not row.support]
    few = [f"{row.name} ({row.support})" for row in measures.classes if 0 < row.support < FEW_OF_CLASS]
    unknown = [f"{row.name} ({row.support})" for row in measures.classes if row.support and not row.known]
    sentences = []
    if none:
        sentences.append(f"No test labels, so nothing is known of: {_names(none)}.")
    if few:
        sentences.append(f"Fewer than {FEW_OF_CLASS} test labels, so their rows say little: {_names(few)}.")
    if unknown:
        sentences.append(
            f"The model does not know these classes, so all their labels count as wrong: {_names(unknown)}."
        )
    return sentences


def _comparison(findings: Findings) -> list[str]:
    compared = findings.compared
    if compared is None:
        return ["There is no champion to compare with: this is the first model, or the only one that can be read."]
    if compared.accuracy.low <= 0 <= compared.accuracy.high:
        return ["The test labels do not show which of the two is more accurate: the difference may be chance."]
    return []


def _unreadable(findings: Findings) -> list[str]:
    if not findings.unreadable:
        return []
    return [f"{_count(len(findings.unreadable), 'test image')} could not be read and left out; they are listed below."]


def _pixels(findings: Findings) -> list[str]:
    if findings.explained is not None or not findings.inputs.uris:
        return []
    if findings.inputs.sees_pixels:
        return ["An ensemble's trees have no gradient, so there are no attributions."]
    return ["Made from kept features, without pixels: robustness and attributions are not part of it."]


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
