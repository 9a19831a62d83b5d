"""One piece of what Label Studio answers in, a frozen record out. Total: whatever stands in it, nothing here raises.

People, scripts and other programs put JSON into Label Studio, and it keeps almost all of it. What cannot be read is
said in the record's `problem`; the rest of the record, and all the others, are read as ever.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any
from urllib.parse import parse_qs, urlsplit

from labelloop.clock import LABEL_STUDIO_FORMAT, parse
from labelloop.labels.results import CONFIRMED_MARK, SEED_MARK, LabelSchema, has_mark, kind, storable
from labelloop.records.given import NOTHING_SAID, Said
from labelloop.records.tasks import Annotation, Seen, Task

NEVER = "1970-01-01T00:00:00.000000Z"  # in place of a time that cannot be read
NOBODY = 0  # in place of an id that cannot be read; Label Studio counts from 1
MOST_S = 366 * 86400.0  # a longer lead time is a wrong one
MAX_ID = 2**63
MAX_VERSION = 200  # characters of a model version: longer ones are not ours
ON = frozenset({"true", "1"})
FIRST = 1900  # years before have no place in a log
_USUAL = re.compile(r"(19|2\d)\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", re.ASCII)
UNREADABLE = "unreadable"  # added to a row by `studio_pieces`: why Label Studio itself cannot give out a part of it


@dataclass(frozen=True, slots=True)
class TaskStub:
    """One task in the change feed: enough to see whether its annotations moved."""

    id: int  # 0 where it cannot be read
    uri: str  # empty where the task has no image
    updated_at: str
    annotations: tuple[tuple[int, str], ...]  # (id, updated_at)
    cancelled: int
    problem: str | None = None  # why it cannot be read
    said: Said = NOTHING_SAID  # of the place of its image


def stub_of(data: object, schema: LabelSchema) -> TaskStub:
    """A row of the change feed."""
    row = data if isinstance(data, Mapping) else {}
    number = number_of(row)
    annotations = sorted((_id(a), moment(a.get("updated_at"))) for a in _objects(row.get("annotations")))
    problem = None if number else f"a task came as {kind(data)} without a number that can be read"
    return TaskStub(
        number or NOBODY, schema.uri(row.get("data")), moment(row.get("updated_at")), tuple(annotations),
        whole(row.get("cancelled_annotations")) or 0, problem or text(row.get(UNREADABLE)) or None,
        schema.said(row.get("data")),
    )  # fmt: skip


def task_of(data: object, schema: LabelSchema) -> Task:
    """A task of the export with all its answers, by id."""
    row = data if isinstance(data, Mapping) else {}
    answers = row.get("annotations") or []
    if not isinstance(answers, list | tuple):
        answers = [answers]
    annotations = sorted((annotation_of(a, schema) for a in answers), key=lambda a: a.id)
    return Task(_id(row), schema.uri(row.get("data")), moment(row.get("updated_at")), (*annotations,))


def annotation_of(data: object, schema: LabelSchema) -> Annotation:
    """One answer: a label, or none with a problem in words."""
    if not isinstance(data, Mapping):
        return Annotation(NOBODY, NEVER, NEVER, None, problem=f"the answer is {kind(data)}, an object is expected")
    result = data.get("result")
    label, problem = schema.read([] if result is None else result)
    problem = text(data.get(UNREADABLE)) or problem
    cancelled = is_on(data.get("was_cancelled"))
    by, last = person(data.get("completed_by")), person(data.get("updated_by"))
    return Annotation(
        id=_id(data), created_at=moment(data.get("created_at")), updated_at=moment(data.get("updated_at")),
        label=None if cancelled or problem else label, cancelled=cancelled,
        ground_truth=is_on(data.get("ground_truth")), completed_by=by, lead_time_s=seconds(data.get("lead_time")),
        seen=seen_of(data.get("prediction"), schema), seed=has_mark(result, SEED_MARK),
        problem=None if cancelled else problem, changed_by=last if last != by else None,
        bulk=_is_bulk(data) and not has_mark(result, CONFIRMED_MARK),
    )  # fmt: skip


def _is_bulk(data: Mapping[str, Any]) -> bool:
    """Made of a prediction by the data manager, which names nobody as the last writer and takes no time.

    Read from the source of 1.23.2: what a person or a script submits has `updated_by`, and so has what they change.
    """
    of_prediction = number_of({"id": data.get("parent_prediction")}) is not None
    untouched = person(data.get("updated_by")) is None and data.get("lead_time") is None
    return of_prediction and (untouched or data.get("bulk_created") is True)


def seen_of(prediction: object, schema: LabelSchema) -> Seen | None:
    """The prediction that an answer names."""
    version = prediction.get("model_version") if isinstance(prediction, Mapping) else None
    if not isinstance(prediction, Mapping) or not isinstance(version, str) or not 0 < len(version) <= MAX_VERSION:
        return None
    result = prediction.get("result")
    label, _ = schema.read(result)
    return Seen(text(version), label, blind=label is None, probability=schema.probability(result))


def newest_of(predictions: object) -> Mapping[str, Any] | None:
    """The prediction that was made last."""
    return max(_objects(predictions), key=_id, default=None)


def raw_uri(address: str) -> str:
    """The s3:// address behind the proxy address that a person's browser gets."""
    try:
        encoded = parse_qs(urlsplit(address).query).get("fileuri")
        return base64.urlsafe_b64decode(encoded[0]).decode() if encoded else address
    except ValueError:  # no URL, no base64 or no UTF-8: then it is no address of the proxy
        return address


# --- single values


def whole(value: object) -> int | None:
    """A number that names something in Label Studio: above 0."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < MAX_ID else None


def number_of(row: object) -> int | None:
    """A row's own id."""
    return whole(row.get("id")) if isinstance(row, Mapping) else None


def person(value: object) -> int | None:
    """Somebody's account id; some answers give the account as an object."""
    return whole(value.get("id") if isinstance(value, Mapping) else value)


def is_on(value: object) -> bool:
    """A switch: true, or what a script writes for it. "false" is none."""
    if isinstance(value, str):
        return value.strip().lower() in ON
    return isinstance(value, int | float) and value == 1


def seconds(value: object) -> float | None:
    """A length of time that a person can have taken."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MOST_S:
        return None
    return float(value) if math.isfinite(value) else None


def moment(value: object) -> str:
    """A time as Label Studio writes it, in UTC; `NEVER` where it cannot be read."""
    if not isinstance(value, str):
        return NEVER
    try:
        time = parse(value)
        if _USUAL.fullmatch(value):
            return value
        return time.astimezone(UTC).strftime(LABEL_STUDIO_FORMAT) if time.tzinfo and time.year > FIRST else NEVER
    except (ValueError, OverflowError):
        return NEVER


def text(value: object) -> str:
    """A text that can be kept; halves of characters are replaced."""
    if not isinstance(value, str):
        return ""
    return value if storable(value) else value.encode("utf-8", "replace").decode()


def _id(data: object) -> int:
    return number_of(data) or NOBODY


def _objects(value: object) -> Sequence[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else []
