"""Label config XML in, the one control that can be learned out; or why there is none, in words.

What a tag means was read from Label Studio 1.23.2: the server keeps tags and attributes as they are, its editor takes
both without regard to case, and fills a `$` wherever it stands from the task.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import quoteattr

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from labelloop.errors import LabelConfigError

MAX_CONFIG = 1_000_000  # characters; it is read with every request for predictions
MAX_CLASSES = 1000
MAX_NAME = 500  # characters of a class or a tag's name
MAX_DEPTH = 100  # tags within tags
EXAMPLE = (
    '<View><Image name="image" value="$image"/><Choices name="label" toName="image"><Choice value="cat"/>'
    '<Choice value="dog"/></Choices></View>'
)
REQUIRED = "Nothing is chosen: the key of a class that is ticked already unticks it. Choose one class, then submit."
_KEY = re.compile(r"\$(\w+)", re.ASCII)
_PATH = re.compile(r"\$\w+(?:\.\w+|\[\d+\])+", re.ASCII)  # what the editor follows into a task
_VARIABLE = re.compile(r"\$[\w\[\].{}]", re.ASCII)  # what it fills in, wherever it stands
_UNSEEN = re.compile(r"display:none|visibility:hidden|opacity:0*\.?0*(;|$)")  # of a style without blanks
_REGIONS = ("perregion", "the class of a region says nothing of the whole image")
_ITEMS = ("peritem", "the class of one image among several says nothing of the task")
_NESTED = ("allownested", "nested choices are paths, and labelloop learns plain classes")


@dataclass(frozen=True, slots=True)
class Control:
    """One single-choice control on one image."""

    name: str
    to_name: str
    data_key: str
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag of the config. ``within``: what its ancestors are: repeater, hidden, choice, or `#` and an id."""

    kind: str  # in small letters
    attributes: Mapping[str, str]  # by names in small letters
    text: str
    within: frozenset[str]
    id: str

    def get(self, name: str) -> str:
        """An attribute; empty where it is missing."""
        return self.attributes.get(name, "")

    def on(self, name: str) -> bool:
        """True where a switch is set, or to something that is neither true nor false."""
        return self.get(name).strip().lower() not in {"", "false"}

    def __str__(self) -> str:
        shown = f' name="{" ".join(self.get("name").split())[:60]}"' if self.get("name") else ""
        return f"<{self.kind.capitalize()}{shown}>"


def parse_control(xml: str) -> Control:
    """The control that is learned; LabelConfigError names the tag, what is wrong and what to write instead."""
    tags = list(_tags(_root(xml)))
    control = _one_control(tags)
    image = _image_of(control, tags)
    _check(control, (*_SERVED, lambda tag: _twice(tag, tags)))
    _check(image, (*_SHOWN, lambda tag: _twice(tag, tags), lambda tag: _several(tag, tags)))
    key = _KEY.fullmatch(image.get("value").strip())
    assert key is not None  # `_no_key` has looked
    return Control(control.get("name"), image.get("name"), key[1], _classes(control, tags))


def asks_for_a_class(xml: str) -> bool:
    """Whether Label Studio refuses an answer with nothing chosen. LabelConfigError."""
    return _one_control(list(_tags(_root(xml)))).on("required")


def make_label_config(classes: Sequence[str]) -> str:
    """A label config for these classes. The choices stand above the image: no scrolling, whatever its height."""
    choices = "\n".join(
        f"    <Choice value={quoteattr(name)}{f' hotkey={quoteattr(key)}' if key else ''}/>"
        for name, key in zip(classes, hotkeys(classes), strict=True)
    )
    return (
        '<View>\n  <Choices name="label" toName="image" choice="single" showInline="true" required="true" '
        f"requiredMessage={quoteattr(REQUIRED)}>\n{choices}\n  </Choices>\n"
        '  <Image name="image" value="$image" zoom="true"/>\n</View>'
    )


def _root(xml: object) -> Element:
    if not isinstance(xml, str):
        raise LabelConfigError(f"the label config is no text but {type(xml).__name__}: write one, like {EXAMPLE}")
    if len(xml) > MAX_CONFIG:
        raise LabelConfigError(
            f"the label config has {len(xml):,} characters, and at most {MAX_CONFIG:,} are read: take out what people "
            "do not need for choosing a class"
        )
    try:
        root: Element = fromstring(xml, forbid_dtd=True)
    except DefusedXmlException as error:
        raise LabelConfigError(
            f"the label config is not valid XML for Label Studio: {type(error).__name__}. Take out <!DOCTYPE> and "
            "entities of its own"
        ) from error
    except (ParseError, ValueError, LookupError) as error:
        raise LabelConfigError(f"the label config is not valid XML: {error}. An example: {EXAMPLE}") from error
    return root


def _tags(root: Element) -> Iterator[Tag]:
    """Every tag in the order of the text, without recursion: who nests tags deeply gets an answer, too."""
    waiting = [(root, frozenset[str](), 1)]
    while waiting:
        element, within, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise LabelConfigError(f"the label config nests more than {MAX_DEPTH} tags in each other: nest fewer")
        tag = Tag(element.tag.lower(), {k.lower(): v for k, v in element.attrib.items()},
                  (element.text or "").strip(), within, f"#{id(element)}")  # fmt: skip
        yield tag
        if tag.kind != "hypertext":  # what stands in it is shown as HTML
            inside = within | _marks(tag)
            waiting += [(child, inside, depth + 1) for child in reversed(element)]


def _marks(tag: Tag) -> frozenset[str]:
    """What is said of everything within."""
    marks = {tag.id} if tag.kind == "choices" else set[str]()
    marks |= {tag.kind} & {"repeater", "choice"}
    return frozenset(marks | ({"hidden"} if _is_conditional(tag) else set()))


def _is_conditional(tag: Tag) -> bool:
    style = "".join(tag.get("style").lower().split())
    return bool(tag.get("visiblewhen") or tag.get("whenchoicevalue") or _UNSEEN.search(style))


def _names(tag: Tag) -> list[str]:
    return [name.strip() for name in tag.get("toname").split(",") if name.strip()]


def _one_control(tags: Sequence[Tag]) -> Tag:
    images = {tag.get("name") for tag in tags if tag.kind == "image"}
    choices = [tag for tag in tags if tag.kind == "choices"]
    controls = [tag for tag in choices if images.intersection(_names(tag))]
    if len(controls) == 1:
        return controls[0]
    lost = [tag for tag in choices if tag not in controls]
    why = f" {lost[0]} has toName={lost[0].get('toname')[:60]!r}, which is no <Image>." if lost and not controls else ""
    several = " Keep the one whose classes are to be learned." if controls else ""
    raise LabelConfigError(
        f"the label config has {len(controls)} <Choices> on an <Image>; labelloop serves exactly one.{why}{several} "
        f"Example: {EXAMPLE}"
    )


def _image_of(control: Tag, tags: Sequence[Tag]) -> Tag:
    names = _names(control)
    if len(names) > 1:
        raise LabelConfigError(
            f"{control} names several tags in toName={control.get('toname')[:60]!r}: name the one <Image> whose class "
            "it is"
        )
    return next(tag for tag in tags if tag.kind == "image" and tag.get("name") == names[0])


# --- what a control, an image and a class must not be: each rule gives a reason with its remedy, or nothing


Rule = Callable[[Tag], str]


def _check(tag: Tag, rules: Sequence[Rule]) -> None:
    for rule in rules:
        if why := rule(tag):
            raise LabelConfigError(f"{tag} {why}")


def _nameless(tag: Tag) -> str:
    if is_name(tag.get("name")):
        return ""
    return f'has no name that can be used: give it one, as in name="label" (at most {MAX_NAME} characters)'


def _twice(tag: Tag, tags: Sequence[Tag]) -> str:
    count = sum(other.get("name") == tag.get("name") for other in tags)
    return f"shares its name with {count - 1} more: give every tag a name of its own" if count > 1 else ""


def _repeated(tag: Tag) -> str:
    why = "stands in a <Repeater>, so that a task has several of it: take it out, and make one task of each image"
    return why if "repeater" in tag.within or "{{" in tag.get("name") else ""


def _switched(switch: str, why: str) -> Rule:
    written = {"perregion": "perRegion", "peritem": "perItem", "allownested": "allowNested"}[switch]
    return lambda tag: f'has {written}="{tag.get(switch)[:20]}": {why}. Leave {written} out' if tag.on(switch) else ""


def _multiple(tag: Tag) -> str:
    choice = tag.get("choice") or "single"
    if choice in {"single", "single-radio"}:
        return ""
    return (
        f'has choice="{choice[:20]}": labelloop learns one class per image; set choice="single" (several classes per '
        "image are not supported yet)"
    )


def _dynamic(tag: Tag) -> str:
    if not tag.get("value"):
        return ""
    return (
        f'takes choices from each task (value="{tag.get("value")[:60]}"), and a model needs the same classes for all: '
        "write them as <Choice> tags and leave value out"
    )


def _hidden(tag: Tag) -> str:
    if "hidden" not in tag.within and not _is_conditional(tag):
        return ""
    return (
        "is hidden at times (visibleWhen, whenChoiceValue or a style, of its own or of a tag around it): people would "
        "submit what the model says without seeing it. Leave the condition out"
    )


def _fixed(tag: Tag) -> str:
    why = "is read-only: people could only submit what the model says. Leave readonly out"
    return why if tag.on("readonly") else ""


def _listed(tag: Tag) -> str:
    why = 'shows several images of a task (valueList): make one task of each image, and write value="$image"'
    return why if tag.get("valuelist") else ""


def _no_key(tag: Tag) -> str:
    value = tag.get("value").strip()
    if _KEY.fullmatch(value):
        return ""
    remedy = 'value="$image", with the key under which each task has the whole address'
    if not value:
        return f"has no value: write {remedy}"
    if _PATH.fullmatch(value):
        why = "is a path into the task data, and labelloop looks under one key of it"
    elif "$" in value:
        why = "is put together of several parts, or is no key of letters, digits and _"
    else:
        why = "shows the same image in every task"
    return f'has value="{value[:60]}", which {why}: write {remedy}'


def _several(tag: Tag, tags: Sequence[Tag]) -> str:
    others = [t for t in tags if t.kind == "image" and t.id != tag.id and (t.get("valuelist") or "$" in t.get("value"))]
    if not others:
        return ""
    return (
        f"is one of {len(others) + 1} images of a task ({others[0]} is another), so it is unclear which one the class "
        "belongs to. Make one task per image; an image that is the same in every task may stay (value without $)"
    )


_SERVED: tuple[Rule, ...] = (
    _nameless, _repeated, *(_switched(*switch) for switch in (_REGIONS, _ITEMS, _NESTED)), _multiple, _dynamic, _hidden,
    _fixed,
)  # fmt: skip
_SHOWN: tuple[Rule, ...] = (_nameless, _repeated, _listed, _no_key, _hidden)


def _classes(control: Tag, tags: Sequence[Tag]) -> tuple[str, ...]:
    choices = [tag for tag in tags if tag.kind == "choice" and control.id in tag.within]
    if not 2 <= len(choices) <= MAX_CLASSES:
        raise LabelConfigError(
            f"the {control} control has {len(choices)} <Choice> tags; it needs two <Choice> tags or more, and at most "
            f"{MAX_CLASSES:,}"
        )
    names = tuple(_class(control, choice) for choice in choices)
    name, count = Counter(unicodedata.normalize("NFC", name.strip()) for name in names).most_common(1)[0]
    if count > 1:
        raise LabelConfigError(
            f"{control} has {count} <Choice> tags that have the same value or alias, {name[:60]!r} (blanks around it "
            "do not count): give each class a name of its own"
        )
    return names


def _class(control: Tag, choice: Tag) -> str:
    """What a result holds where it is chosen."""
    name = choice.attributes.get("alias", choice.get("value"))
    if why := _unfit(choice, name):
        raise LabelConfigError(f'<Choice value="{choice.get("value")[:60]}"> of {control} {why}')
    return name


def _unfit(choice: Tag, name: str) -> str:
    why = next(filter(None, (rule(choice) for rule in _CHOSEN)), "")
    if why or is_name(name):
        return why
    return f"is no name: use at most {MAX_NAME} characters, without line breaks and the like"


def _nested(choice: Tag) -> str:
    if "choice" in choice.within:
        return "stands within another <Choice>: labelloop learns plain classes; write all of them side by side"
    doubly = sum(mark.startswith("#") for mark in choice.within) > 1
    return "stands within a <Choices> in a <Choices>: keep one of them" if doubly else ""


def _ticked(choice: Tag) -> str:
    why = "is ticked from the start (selected): people would submit it without having looked. Leave selected out"
    return why if choice.on("selected") else ""


def _unnamed(choice: Tag) -> str:
    if not choice.get("value").strip() or choice.text:
        return 'needs its class in value="…" and no text between its tags'
    if "alias" in choice.attributes:
        return "" if choice.get("alias").strip() else "has an empty alias: write one, or leave alias out"
    if _VARIABLE.search(choice.get("value")):
        return 'is filled in from each task (`$`): write the class itself, or give it an alias="…"'
    return ""


_CHOSEN: tuple[Rule, ...] = (_nested, _hidden, _fixed, _ticked, _unnamed)


def is_name(name: str) -> bool:
    """Whether a class or a control can be called so: to be seen, not too long, nothing that moves a cursor."""
    kinds = {unicodedata.category(c) for c in name[: MAX_NAME + 1]}
    return len(name) <= MAX_NAME and not kinds & {"Cc", "Zl", "Zp"} and not kinds <= {"Cf", "Zs"}


def hotkeys(classes: Sequence[str]) -> list[str]:
    """The class itself where all are single letters or digits, else 1 to 9 for the first nine."""
    if all(len(name) == 1 and name.isalnum() for name in classes):
        return [name.lower() for name in classes]
    return [str(i) if i <= 9 else "" for i in range(1, len(classes) + 1)]
