"""Judged answers in, the surest of the wrong ones out, with small pictures where there are pixels."""

from __future__ import annotations

from collections.abc import Sequence

from labelloop.decoding.square import shrink
from labelloop.errors import ImageUnreadableError
from retrain_worker.report.drawing.pictures import SIDE, jpeg
from retrain_worker.report.findings import JudgedImages, Mistake
from retrain_worker.report.inputs import Inputs
from retrain_worker.report.measures import predicted


def mistakes(
    inputs: Inputs, judged: JudgedImages, places: Sequence[int], classes: Sequence[str]
) -> tuple[Mistake, ...]:
    """One for each place."""
    return tuple(_mistake(inputs, judged, place, classes) for place in places)


def _mistake(inputs: Inputs, judged: JudgedImages, place: int, classes: Sequence[str]) -> Mistake:
    rows = [probabilities[place] for probabilities in judged.probabilities]
    ours, *theirs = (int(predicted(row[None])[0]) for row in rows)
    truth = int(judged.truth[place])
    return Mistake(
        uri=judged.uris[place], truth=classes[truth], answer=_named(ours, classes), probability=float(rows[0].max()),
        given=float(rows[0][truth]), champion=_named(theirs[0], classes) if theirs else None,
        picture=_thumbnail(inputs, judged.uris[place]),
    )  # fmt: skip


def _named(code: int, classes: Sequence[str]) -> str:
    return classes[code] if code >= 0 else "no answer"


def _thumbnail(inputs: Inputs, uri: str) -> str | None:
    if inputs.load is None:
        return None
    try:
        return jpeg(shrink(inputs.load(uri), SIDE))
    except ImageUnreadableError:
        return None
