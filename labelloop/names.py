"""A name that somebody else chose in, whether it can be carried from S3 to Label Studio and back out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from unicodedata import category

LONGEST = 1024  # bytes of a key, as S3 counts them
_LOST = {"Cc", "Zl", "Zp"}  # kinds of characters
_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def harmless(text: str) -> str:
    """Text as it may reach a terminal: what would move the cursor, colour or turn the line round is a �."""
    return _STEERS.sub("\ufffd", text)


def encodable(text: str) -> str:
    """Text as it may be written in UTF-8: a lone half of a surrogate pair is a �."""
    return _SURROGATE.sub("\ufffd", text)


def shown(name: str) -> str:
    """A name in quotes on one line, with all that cannot be seen written out."""
    text = name if len(name) <= 120 else name[:100] + "…" + name[-15:]
    return ascii(text) if _STEERS.search(text) or _SURROGATE.search(text) or "\n" in text else repr(text)


def carried(name: str, room: int = LONGEST) -> str:
    """A relative path as a key may hold it, in ``room`` bytes. A mark at its end keeps a changed one unique."""
    text = "".join("_" if c in "?\ufffd" or category(c) in _LOST else c for c in name)
    if text == name and len(text.encode()) <= room:
        return name
    stem, dot, ending = text.rpartition(".")
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    tail = f"-{mark}" + (f".{ending}" if dot and stem and "/" not in ending else "")
    stem = stem if tail.endswith(f".{ending}") else text
    return stem.encode()[: room - len(tail.encode())].decode(errors="ignore") + tail


def unfit(key: str) -> str | None:
    """Why an object of this name cannot become a task that shows it; None where it can.

    Each of these is lost on the way: in the listing's XML, in Label Studio's filter, in an address, in JSON.
    """
    return next((why for is_so, why in _UNFIT if is_so(key)), None)


_UNFIT: tuple[tuple[Callable[[str], bool], str], ...] = (
    (lambda key: bool(_SURROGATE.search(key)) or "\ufffd" in key, "it is not UTF-8"),
    (lambda key: any(category(c) in _LOST for c in key), "it holds a line break or a control character"),
    (lambda key: "?" in key, "Label Studio reads an address only up to a ?"),
    (lambda key: key.startswith("/"), "Label Studio drops the / that it begins with"),
    (lambda key: bool({".", ".."}.intersection(key.split("/"))), "it has a . or .. between its slashes"),
    (lambda key: len(key.encode()) > LONGEST, f"it is longer than {LONGEST} bytes"),
)
