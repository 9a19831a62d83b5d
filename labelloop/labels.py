"""Label config XML and Label Studio results in, class names out; and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import quoteattr

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from labelloop.errors import LabelConfigError

SEED_MARK = "seed"  # in a result's meta: revealed at set-up, not given by a person


@dataclass(frozen=True, slots=True)
class LabelSchema:
    """The one control that labelloop serves. ``classes`` are what results hold: alias where given, else value."""

    control: str  # name of the Choices tag
    to_name: str  # name of the Image tag
    data_key: str  # key of the image in a task's data
    classes: tuple[str, ...]

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

    def read(self, result: Sequence[Mapping[str, Any]]) -> tuple[str | None, str | None]:
        """(class, problem): the chosen class, or why there is none that can be read.

        The class is as it was given, also where the label config has lost it: what it counts as is for
        `labelloop.schema` to say.
        """
        chosen = [c for item in result if item.get("from_name") == self.control
                  for c in item.get("value", {}).get("choices", ())]  # fmt: skip
        if not chosen:
            return None, None
        if len(chosen) > 1:
            return None, f"{len(chosen)} classes chosen, one is expected"
        return chosen[0], None

    def probability(self, result: Sequence[Mapping[str, Any]]) -> float | None:
        """What the model gave the class that it chose, in [0, 1]; None where the result does not say."""
        for item in result:
            score = item.get("score") if item.get("from_name") == self.control else None
            if isinstance(score, int | float) and 0 <= score <= 1:
                return float(score)
        return None


def parse_label_config(xml: str) -> LabelSchema:
    """The single-choice control on an image, found by its tags; LabelConfigError says what is missing."""
    try:
        root = fromstring(xml)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise LabelConfigError(f"the label config is not valid XML: {error}") from error
    images = {e.get("name"): e for e in root.iter() if e.tag.lower() == "image"}
    controls = [e for e in root.iter() if e.tag.lower() == "choices" and e.get("toName") in images]
    if len(controls) != 1:
        raise LabelConfigError(
            f"the label config has {len(controls)} <Choices> on an <Image>; labelloop serves exactly one. "
            'Example: <View><Image name="image" value="$image"/><Choices name="label" toName="image">'
            '<Choice value="cat"/><Choice value="dog"/></Choices></View>'
        )
    return _schema(controls[0], images[controls[0].get("toName")])


def _schema(control: Element, image: Element) -> LabelSchema:
    if control.get("choice", "single") not in {"single", "single-radio"}:
        raise LabelConfigError(
            f'<Choices name="{control.get("name")}"> has choice="{control.get("choice")}": labelloop learns one '
            'class per image; set choice="single" (several classes per image are not supported yet)'
        )
    classes = tuple(e.get("alias") or e.get("value") or "" for e in control.iter() if e.tag.lower() == "choice")
    if len(classes) < 2 or "" in classes:
        raise LabelConfigError("the <Choices> control needs two <Choice> tags or more, each with a value")
    if len(set(classes)) != len(classes):
        raise LabelConfigError("two <Choice> tags of the label config have the same value or alias")
    key = (image.get("value") or "").removeprefix("$")
    if not key:
        raise LabelConfigError('the <Image> tag needs value="$image" (or another key of the task data)')
    return LabelSchema(control.get("name") or "", image.get("name") or "", key, classes)


def make_label_config(classes: Sequence[str]) -> str:
    """A label config for these classes. The choices stand above the image: no scrolling, whatever its height."""
    choices = "\n".join(
        f"    <Choice value={quoteattr(name)}{f' hotkey={quoteattr(key)}' if key else ''}/>"
        for name, key in zip(classes, _hotkeys(classes), strict=True)
    )
    return (
        '<View>\n  <Choices name="label" toName="image" choice="single" showInline="true">\n'
        f'{choices}\n  </Choices>\n  <Image name="image" value="$image" zoom="true"/>\n</View>'
    )


def _hotkeys(classes: Sequence[str]) -> list[str]:
    """The class itself where all are single letters or digits, else 1 to 9 for the first nine."""
    if all(len(name) == 1 and name.isalnum() for name in classes):
        return [name.lower() for name in classes]
    return [str(i) if i <= 9 else "" for i in range(1, len(classes) + 1)]
