"""An image's address in, what people know of it out: its group by a pattern, and whether it is of their own test set.

A pattern is `folders/{group}_*.png`: the last parts of an address, each as far as the next `/`. `{group}` is what names
the group, `*` is anything. Both take as little as they can, so a pattern is tried once and never goes back.
"""

from __future__ import annotations

import re

from labelloop.records.json import digest

GROUP, ANYTHING = "{group}", "*"
LONGEST = 200  # characters of a pattern
_WILD = re.compile(r"(\{group\}|\*)")


def checked_pattern(pattern: str) -> str:
    """The pattern; ValueError says what is wrong with it."""
    if len(pattern) > LONGEST:
        raise ValueError(f"the pattern has {len(pattern)} characters; {LONGEST} are enough for the end of an address")
    if pattern and pattern.count(GROUP) != 1:
        raise ValueError(f"the pattern {pattern!r} needs {GROUP} exactly once, e.g. '{GROUP}/*' for a folder each")
    rest = pattern.replace(GROUP, "")
    if "{" in rest or "}" in rest:
        raise ValueError(
            f"the pattern {pattern!r} has braces that are not {GROUP}; only {GROUP} and * stand for anything"
        )
    if any(not part for part in pattern.split("/")) and pattern:
        raise ValueError(f"the pattern {pattern!r} has an empty part: it begins or ends with /, or has // in it")
    if f"{GROUP}{ANYTHING}" in pattern or f"{ANYTHING}{GROUP}" in pattern or ANYTHING * 2 in pattern:
        raise ValueError(f"the pattern {pattern!r} does not say where {GROUP} ends: put a character between it and *")
    return pattern


def group_by(pattern: str, uri: str) -> str | None:
    """The group that the address names; None where the pattern does not fit it."""
    parts = pattern.split("/")
    tail = uri.split("/")[-len(parts) :]
    if not pattern or len(tail) < len(parts):
        return None
    group: str | None = None
    for part, text in zip(parts, tail, strict=True):
        fits, here = _match(part, text)
        if not fits:
            return None
        group = here if here is not None else group
    return name_of(group) if group else None


def name_of(group: str) -> str:
    """The hash of a group's name, whether an address or a task says it: nothing else of it is kept."""
    return digest(f"group:{group}".encode("utf-8", "replace"))


def in_test_set(prefix: str, uri: str, folder: str) -> bool:
    """Whether an image is of people's own test set. ``prefix``: an address, or below the project's ``folder``."""
    whole = prefix if "://" in prefix else folder.rstrip("/") + "/" + prefix.lstrip("/")
    return bool(prefix) and uri.startswith(whole)


def _match(part: str, text: str) -> tuple[bool, str | None]:
    """(whether one part fits, what stands for the group in it)."""
    first, *others = _WILD.split(part)  # text, then a wild card and text in turn
    if not others:
        return text == first, None
    at, group = len(first), None
    fits = text.startswith(first)
    for number, (wild, word) in enumerate(zip(others[::2], others[1::2], strict=True)):
        least = at + (wild == GROUP)
        last = number == len(others) // 2 - 1
        end = (len(text) - len(word) if text.endswith(word) else -1) if last else text.find(word, least)
        if not fits or end < least:
            return False, None
        group = text[at:end] if wild == GROUP else group
        at = end + len(word)
    return True, group
