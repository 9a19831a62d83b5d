"""Answers, tasks and label configs as nobody should send them in, what of them is not read out: none.

    python -m bench.faults.hostile [--answers 20000] [--configs 5000] [--seed 1]

Any JSON in every place of an annotation and of a task, and any change to a label config. Each goes the way of the real
ones: read as the watcher, the backup and a person's queue read it, kept as a snapshot keeps it, and used.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import quoteattr

from labelloop.errors import LabelConfigError, StudioError
from labelloop.labels.results import LabelSchema, make_label_config, parse_label_config
from labelloop.records.json import canonical
from labelloop.records.tasks import QueuePlace, Task, task_from, task_line
from labelloop.rules.acquisition.order import QUOTA
from labelloop.rules.revisions import revisions
from labelloop.rules.schema import LabelRules
from labelloop.rules.uncounted import uncounted
from labelloop.rules.value.looks import looks_of
from labelloop.studio.archive import StudioArchive
from labelloop.studio.archive import task_line as kept_line
from labelloop.studio.client import Studio, _next, _project
from labelloop.studio.rows import annotation_of, stub_of, task_of
from operations.status import acceptance
from sync.metrics import moves_between
from sync.predictions.shown import Seeing

XML = make_label_config(["zero", "one", "two"])
SCHEMA = parse_label_config(XML)
RULES = LabelRules({"two": "one", "gone": None})
AT = "2026-01-01T00:00:00.000000Z"
Json = dict[str, Any]


def deep(levels: int, *, objects: bool = False) -> Any:
    """A value in a value in a value."""
    found: Any = "zero"
    for _ in range(levels):
        found = {"choices": found} if objects else [found]
    return found


NASTY: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 1.5, -0.0, 2**31, 2**63, 2**64, 10**400, -(10**400), 1e300, 1e-320,
    float("inf"), float("-inf"), float("nan"), "", " ", "zero", "one", "seed", "x", "null", "0", "7", "²", "٣",
    "\ud800", "\udfff\ud800", "zero\udc80", "a\x00b", "\n", "\x1b[31m", "\u202eoreZ", "🙂", "e\u0301", "x" * 100_000,
    "s3://b/\ud800",
    "/tasks/1/resolve/?fileuri=%%%", "/tasks/1/resolve/?fileuri=gICA", "http://[", "2026-13-01T00:00:00Z", "2026-01-01",
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-01-01T00:00:00", "٢٠٢٦-01-01T00:00:00Z", "now",
    AT, [], [None], [[]], ["zero"], ["zero", "one"], ["zero", "zero"], ["seed"], [1], [["zero", "one"]], [{}], {},
    {"": None}, {"id": 1}, {"id": None}, {"id": "1"}, {"choices": ["one"]}, {"choices": None}, {"text": ["seed"]},
    {"text": "seed"}, {"text": "no seeds visible"}, {"image": ["s3://b/a"]}, {"image": {"image": 1}},
    {"model_version": ["v1"]}, [0] * 2000, deep(300), deep(300, objects=True),
)  # fmt: skip


def item(label: Any, **more: Any) -> Json:
    """One item of a result."""
    return {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [label]}, **more}


def annotation(chance: random.Random, number: int) -> Json:
    """One as Label Studio exports it."""
    seen = {"model_version": "v3", "result": [item("one", score=0.7)], "score": 0.4, "id": 5}
    marked = item(chance.choice(["zero", "one", "two", "gone"]), meta={"text": ["seed"]}, id="a1", origin="manual")
    note = {"from_name": "note", "to_name": "image", "type": "textarea", "value": {"text": ["blurred"]}}
    return {
        "id": number, "completed_by": chance.choice([1, {"id": 2, "email": "a@b"}]),
        "result": [marked, note][: 1 + number % 2],
        "was_cancelled": number % 7 == 0, "ground_truth": number % 5 == 0, "created_at": AT, "updated_at": AT,
        "lead_time": 3.5, "prediction": seen if number % 3 else {}, "updated_by": 1, "parent_prediction": 5,
    }  # fmt: skip


def task(chance: random.Random, number: int) -> Json:
    """One as Label Studio lists and exports it."""
    answers = [annotation(chance, i) for i in range(chance.randrange(4))]
    return {
        "id": number, "data": {"image": f"s3://b/{number}.png", "note": "x"}, "meta": {},
        "created_at": AT, "updated_at": AT, "annotations": answers, "cancelled_annotations": 0,
        "total_annotations": len(answers), "drafts": [],
        "predictions": [{"id": 5, "model_version": "v3", "result": [item("one", score=0.7)], "score": 0.4}],
        "title": "pets", "label_config": XML, "model_version": "v3", "sampling": "x", "maximum_annotations": 1,
    }  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) within a JSON value."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        held = waiting.pop()
        keys: Any = held if isinstance(held, dict) else range(len(held)) if isinstance(held, list) else ()
        for key in keys:
            found.append((held, key))
            if len(found) < 500:
                waiting.append(held[key])
    return found


def changed(value: Any, chance: random.Random) -> Any:
    """The same with one to four places changed: any JSON in it, taken out, doubled, or under another name."""
    box = [copy.deepcopy(value)]
    for _ in range(chance.randint(1, 4)):
        held, key = chance.choice(places(box))
        match chance.randrange(8):
            case 0 if isinstance(held, dict):
                del held[key]
            case 1 if isinstance(held, list) and held is not box:
                held.append(held[key])
            case 2 if isinstance(held, dict):
                held[str(chance.choice(NASTY))[:50]] = held.pop(key)
            case 3:
                held[key] = [held[key]]
            case _:
                held[key] = chance.choice(NASTY)
    return box[0]


# --- what is done with them


def go_through(row: Any) -> None:
    """The way of one task through the loop."""
    found = task_of(row, SCHEMA)
    stub = stub_of(row, SCHEMA)
    assert found.id == stub.id, "the feed and the export must speak of the same task"
    assert stub.id or stub.problem, "a task that cannot be named says why"
    _keep(found)
    _use(found)
    for read in (_next, lambda data, _schema: _project(data)):
        try:
            read(row, SCHEMA)
        except StudioError as error:
            assert str(error)  # in words
    _archive(row)


def _keep(found: Task) -> None:
    """A snapshot gives back what it was given, and every answer is a label, or says why it is none."""
    assert task_from(json.loads(canonical(task_line(found)))) == found
    for answer in found.annotations:
        assert answer.label is None or answer.problem is None
        assert answer.problem is None or answer.problem.isprintable(), answer.problem


def _use(found: Task) -> None:
    counting = RULES.task(found)
    counted = uncounted([counting], SCHEMA, str)
    lost = [a for a in counting.annotations if not a.cancelled and (a.label not in SCHEMA.classes or not found.uri)]
    assert sum(row.count for row in counted) == len(lost), "told, every one"
    seeing = Seeing(lambda _version, uri: QueuePlace(uri, 0.5, "one", 0.5, True, QUOTA))
    for hour in range(3):
        moment = moment_of(hour)
        seeing.switched(f"v{hour}", moment, moment)
    for answer in found.annotations:
        seeing.of(found.uri, answer)
    looks_of([found], RULES)
    revisions([counting], {}, (), SCHEMA.classes)
    acceptance({1: counting})
    list(moves_between({}, {1: found}))


def moment_of(hour: int) -> datetime:
    """Around the time of all answers."""
    return datetime(2026, 1, 1, hour, tzinfo=UTC)


class _Answers:
    """A Label Studio that gives one row to whoever asks."""

    def __init__(self, row: Any) -> None:
        self.row, self.pages = row, 0

    def call(self, _method: str, path: str, *, params: Any = None) -> Any:
        del params
        if path == "api/users/":
            return [self.row, {"id": 1, "email": "owner@example.com"}]
        if path == "api/tasks/":
            self.pages += 1
            return {"tasks": [self.row] if self.pages == 1 else []}
        return [self.row]


@functools.cache
def _studio() -> Any:
    studio = Studio("http://nowhere", "token")
    studio.close()
    return studio


def _archive(row: Any) -> None:
    studio = _studio()
    studio.http = _Answers(row)
    studio._call = studio.http.call
    for page in StudioArchive(studio).tasks(1):
        for kept in page:
            kept_line(kept)
            kept.uri(SCHEMA)


# --- label configs

HEAD = '<View><Image name="image" value="$image"/>'
BASES = (
    *[XML] * 4,
    HEAD + '<Choices name="label" toName="image"><Choice value="a"/><Choice value="b" alias="c"/></Choices></View>',
    HEAD + '<Choices name="l" toName="image" perRegion="true"><Choice value="a"/><Choice value="b"/></Choices></View>',
    '<View><Repeater on="$p" indexFlag="{{idx}}"><Image name="p{{idx}}" value="$p[{{idx}}]"/><Choices name="c{{idx}}" '
    'toName="p{{idx}}"><Choice value="a"/><Choice value="b"/></Choices></Repeater></View>',
    HEAD
    + '<Image name="other" value="$b"/><Choices name="l" toName="image,other" allowNested="true"><Choice value="a">'
    '<Choice value="b"/></Choice><Choice value="c"/></Choices></View>',
    HEAD + '<View visibleWhen="region-selected"><Choices name="l" toName="image" value="$options" choice="multiple">'
    '<Choice value="$a"/><Choice value=" a "/></Choices></View><TextArea name="t" toName="image" required="true"/>'
    "</View>",
)
TAGS = (
    "View",
    "Image",
    "Choices",
    "Choice",
    "choices",
    "IMAGE",
    "Repeater",
    "HyperText",
    "Text",
    "Style",
    "TextArea",
    "x:y",
    "",
)
NAMES = ("name", "toName", "toname", "value", "valueList", "alias", "choice", "perRegion", "perItem", "allowNested",
         "visibleWhen", "whenChoiceValue", "required", "xmlns", "xmlns:x", "VALUE")  # fmt: skip
VALUES = ("", " ", "true", "false", "True", "image", "label", "image,other", "$image", "$meta.url", "$a.b.c",
          "$images[0]", "https://host/$name", "$", "$$", "$my-key", "$bild_ä", "{{idx}}", "a", " a", "a ", "multiple",
          "single-radio", "cost $5", "🙂", "&#10;", "x" * 600, "\x85")  # fmt: skip
PIECES = ("<", ">", "&", '"', "<!--", "-->", "<![CDATA[", "]]>", "<?xml version='1.0' encoding='utf-16'?>", "&#0;",
          "&a;", "\x00", "\ud800", "\ufeff", "<!DOCTYPE x>", '<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>',
          "</View>", "<View>" * 300, '<Choice value="a"/>' * 1200)  # fmt: skip


def config(chance: random.Random) -> str:
    """A label config, changed in one to four places."""
    text = chance.choice(BASES)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 4))):
        text = chance.choice((_tag, _attribute, _attribute, _value, _value, _piece, _cut, _double))(text, chance)
    return text


def _tag(text: str, chance: random.Random) -> str:
    words = [word for word in ("View", "Image", "Choices", "Choice", "Repeater") if word in text]
    old = chance.choice(words or [""])
    return text.replace(old, chance.choice(TAGS), chance.choice([1, 2, -1])) if old else text


def _attribute(text: str, chance: random.Random) -> str:
    at = chance.choice([i for i, c in enumerate(text) if c == " "] or [0])
    return f"{text[:at]} {chance.choice(NAMES)}={quoteattr(chance.choice(VALUES))}{text[at:]}"


def _value(text: str, chance: random.Random) -> str:
    parts = text.split('"')
    if len(parts) > 2:
        parts[chance.randrange(1, len(parts), 2) if len(parts) > 3 else 1] = chance.choice(VALUES)
    return '"'.join(parts)


def _piece(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice(PIECES) + text[at:]


def _cut(text: str, chance: random.Random) -> str:
    return text[: chance.randrange(len(text) + 1)]


def _double(text: str, chance: random.Random) -> str:
    start = chance.randrange(len(text) + 1)
    end = min(len(text), start + chance.randrange(1, 200))
    return text[:end] + text[start:end] + text[end:]


def read_config(text: Any) -> str:
    """`served` or `refused`; what is served can be answered and read back."""
    try:
        schema = parse_label_config(text)
    except LabelConfigError as error:
        assert len(str(error)) > 20
        return "refused"
    _holds(schema)
    return "served"


def _holds(schema: LabelSchema) -> None:
    assert len(set(schema.classes)) == len(schema.classes) >= 2
    assert schema.control.strip() and schema.to_name.strip()
    for name in schema.classes:
        assert schema.read(schema.result(name, 0.5)) == (name, None)
    assert schema.uri({schema.data_key: "s3://b/x.png"}) == "s3://b/x.png"


# --- all of it


@dataclass(frozen=True, slots=True)
class Failure:
    """One that raised."""

    what: str
    error: str


def attack(
    count: int, make: Callable[[int], Any], meet: Callable[[Any], Any], found: Counter[str]
) -> Iterator[Failure]:
    """Those of ``count`` that raised."""
    for number in range(count):
        made = make(number)
        try:
            found[str(meet(made))] += 1
        except Exception as error:  # what is looked for
            yield Failure(repr(made)[:1500], f"{type(error).__name__}: {error}"[:300])


def answers(count: int, seed: int) -> Iterator[Failure]:
    """Tasks with answers, and answers alone."""
    chance = random.Random(seed)

    def make(number: int) -> Any:
        if number % 50 == 0:
            return chance.choice(NASTY)
        return changed(task(chance, number + 1), chance)

    yield from attack(count, make, go_through, Counter())
    lone = (changed(annotation(chance, i + 1), chance) for i in range(count // 4))
    yield from attack(count // 4, lambda _: next(lone), lambda row: annotation_of(row, SCHEMA), Counter())


def configs(count: int, seed: int, found: Counter[str]) -> Iterator[Failure]:
    """Label configs."""
    chance = random.Random(seed)

    def make(number: int) -> Any:
        return chance.choice(NASTY) if number % 50 == 0 else config(chance)

    yield from attack(count, make, read_config, found)


def main() -> None:
    """Print how many were met, and those that raised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=20_000)
    parser.add_argument("--configs", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    began, kinds = time.perf_counter(), Counter[str]()
    failures = [*answers(wanted.answers, wanted.seed), *configs(wanted.configs, wanted.seed, kinds)]
    for failure in failures[:10]:
        print(failure.error, "\n   ", failure.what)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{wanted.answers:,} tasks, {wanted.answers // 4:,} answers, {wanted.configs:,} label configs "
          f"({dict(kinds)}): {len(failures)} exceptions, {time.perf_counter() - began:.0f} s, "
          f"peak {peak:.0f} MB")  # fmt: skip
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main()
