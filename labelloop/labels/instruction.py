"""Classes in; what people read when they begin to label, and the key that submits, out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from labelloop.labels.label_config import hotkeys

NAMED = 36  # classes whose keys are listed
SUBMIT = "annotation:annotation:submit"  # Label Studio doubles the prefix
ENTER = {"key": "enter", "active": True}


def instruction(classes: Sequence[str]) -> str:
    """HTML, as Label Studio shows it on every entry into the label stream."""
    keys = [f"<b>{escape(key)}</b> {escape(name)}" for name, key in zip(classes, hotkeys(classes), strict=True) if key]
    more = f", and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return (
        "<p>Close this window with <b>Esc</b>: Enter already submits the image behind it.</p>"
        f"<p>Choose the class of the image. Keys: {', '.join(keys[:NAMED])}{more}.</p>"
        "<p>A class that is ticked already is the model's suggestion. Right: <b>Enter</b> (or Submit) accepts it. "
        "Wrong: press the key of the right class, then Enter. The key of the ticked class unticks it.</p>"
        "<p>Some images come without a suggestion on purpose: answers that no suggestion has swayed show how good the "
        "model is. Cannot tell? Skip.</p>"
    )


def with_enter(hotkeys: Mapping[str, Any]) -> dict[str, Any] | None:
    """A person's keys with Enter as submit; None where nothing is to be changed: they have chosen a key themselves."""
    return None if SUBMIT in hotkeys else {**hotkeys, SUBMIT: ENTER}
