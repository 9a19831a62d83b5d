"""Label Studio results in, class names out; and back. The config that they follow is read by `label_config`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labelloop.config.task_fields import NO_FIELDS, Fields
from labelloop.labels.label_config import MAX_NAME, Control, is_name, make_label_config, parse_control
from labelloop.records.given import Said

__all__ = [
    "CONFIRMED_MARK", "SEED_MARK", "LabelSchema", "has_mark", "kind", "make_label_config", "parse_label_config",
    "storable",
]  # fmt: skip

SEED_MARK = "seed"  # in a result's meta: revealed at set-up, not given by a person
CONFIRMED_MARK = "confirmed"  # in a result's meta: a person looked at it, although Label Studio made it in bulk
NOTHING = "nothing chosen"
OF_A_PART = frozenset({  # what the value of a result says of a region or an item, besides its class
    "x", "y", "points", "vertices", "rle", "format", "start", "end", "startOffset", "endOffset", "globalOffsets",
    "item_index", "sequence", "ranges", "imageDataURL",
})  # fmt: skip
MAX_URI = 8192  # characters
_LONE = re.compile("[\ud800-\udfff]")  # half of a character: no file and no store can hold it


@dataclass(frozen=True, slots=True)
class LabelSchema:
    """The one control that labelloop serves. ``classes`` are what results hold: alias where given, else value."""

    control: str  # name of the Choices tag
    to_name: str  # name of the Image tag
    data_key: str  # key of the image in a task's data
    classes: tuple[str, ...]
    fields: Fields = NO_FIELDS  # of a task's data, that say where its image stands

    def result(self, label: str, probability: float | None = None) -> list[dict[str, Any]]:
        """A Label Studio result that selects one class."""
        item: dict[str, Any] = {
            "from_name": self.control,
            "to_name": self.to_name,
            "type": "choices",
            "value": {"choices": [label]},
        }
        if probability is not None:
            item["score"] = round(probability, 4)
        return [item]

    def read(self, result: object) -> tuple[str | None, str | None]:
        """(class, problem): the chosen class, or why there is none that can be read. Takes any JSON.

        The class is as it was given, also where the label config has lost it: what it counts as is for
        `labelloop.rules.schema` to say.
        """
        if not isinstance(result, list | tuple):
            return None, f"the answer is {kind(result)}, where Label Studio keeps a list"
        ours = list(self._ours(result))
        if not ours:
            return None, _of_others(result, self.control)
        chosen: list[object] = []
        for item in ours:
            choices, problem = _choices(item.get("value"), item.get("item_index"))
            if problem:
                return None, problem
            chosen += choices
        return _only(chosen)

    def probability(self, result: object) -> float | None:
        """What the model gave the class that it chose, in [0, 1]; None where the result does not say."""
        for item in self._ours(result):
            score = item.get("score")
            if isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 1:
                return float(score)
        return None

    def uri(self, data: object) -> str:
        """The image's address in a task's data; empty where there is none, or a list, or one that nobody can store."""
        value = data.get(self.data_key) if isinstance(data, Mapping) else None
        return value if isinstance(value, str) and len(value) <= MAX_URI and storable(value) else ""

    def said(self, data: object) -> Said:
        """What a task's data says of its image's place."""
        return self.fields.of(data)

    def _ours(self, result: object) -> Iterator[Mapping[str, Any]]:
        for item in result if isinstance(result, list | tuple) else ():
            if isinstance(item, Mapping) and item.get("from_name") == self.control:
                yield item


def parse_label_config(xml: str) -> LabelSchema:
    """The single-choice control on an image, found by its tags; LabelConfigError says what is wrong, and where."""
    control: Control = parse_control(xml)
    return LabelSchema(control.name, control.to_name, control.data_key, control.classes)


def has_mark(result: object, mark: str) -> bool:
    """True where an item of the answer has this word in its meta."""
    return isinstance(result, list | tuple) and any(_is_marked(item, mark) for item in result)


def storable(text: str) -> bool:
    """False where a text holds halves of characters (lone surrogates), which JSON can say and UTF-8 cannot."""
    return not _LONE.search(text)


def kind(value: object) -> str:
    """What a JSON value is, in words."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    names = ((str, "text"), (int | float, "a number"), (Mapping, "an object"), (list | tuple, "a list"))
    return next((name for types, name in names if isinstance(value, types)), "no JSON")


def _is_marked(item: object, mark: str) -> bool:
    meta = item.get("meta") if isinstance(item, Mapping) else None
    text = meta.get("text") if isinstance(meta, Mapping) else None
    return text == mark or (isinstance(text, list | tuple) and mark in text)


def _choices(value: object, number: object) -> tuple[Sequence[object], str | None]:
    """(what one item of a result chose, why that cannot be read). ``number``: of the image that it speaks of."""
    if not isinstance(value, Mapping):
        return (), f"the value of the answer is {kind(value)}, an object with `choices` is expected"
    part = sorted(OF_A_PART.intersection(value)) or ([] if number is None else ["item_index"])
    if part:
        return (), f"the class is that of a region or an item (it has `{part[0]}`), not of the whole image"
    choices = value.get("choices")
    if not isinstance(choices, list | tuple):
        return (), f"`choices` of the answer is {kind(choices)}, a list with one class is expected"
    return choices, None


def _only(chosen: Sequence[object]) -> tuple[str | None, str | None]:
    """The one class, as text."""
    if len(chosen) != 1:
        return None, f"{len(chosen)} classes chosen, one is expected" if chosen else None
    label = chosen[0]
    if isinstance(label, list | tuple):
        return None, "a path of nested choices was chosen, one class is expected"
    if not isinstance(label, str):
        return None, f"the class is {kind(label)}, text is expected"
    if not is_name(label) or not storable(label):
        return (
            None,
            f"the class is no name: empty, longer than {MAX_NAME} characters, or with characters that no name has",
        )
    return label, None


def _of_others(result: Sequence[Any], control: str) -> str | None:
    """Why an answer says nothing under our control; None where it is empty."""
    if not result:
        return None
    for item in result:
        if not isinstance(item, Mapping):
            return f"an item of the answer is {kind(item)}, an object is expected"
    names = {name for item in result if isinstance(name := item.get("from_name"), str)}
    shown = ", ".join(sorted(repr(name[:40]) for name in names)[:3]) or "a control without a name"
    return f"{NOTHING} under {control!r}: the answer is that of {shown}"
