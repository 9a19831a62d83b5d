"""What people type in, what is meant out: shares and versions, as options of a command."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated

import typer

MOST = 1_000_000  # of anything that is counted: larger numbers are slips, and some cannot be counted to


def share(text: str | float) -> float:
    """0.92, .92, 92 or 92 %: a number in [0, 1]. What lies between 1 and 2 can mean either, so it is asked again."""
    if isinstance(text, int | float):  # an option's default
        return float(text)
    word = text.strip()
    number = _number(word.removesuffix("%"))
    percent = word.endswith("%") or number >= 2
    if number is math.inf or not 0 <= number <= (100 if percent else 1):
        raise typer.BadParameter(f"{text!r} is not a share: write 0.92 or 92%")
    return number / 100 if percent else number


def _number(word: str) -> float:
    try:
        number = float(word)
    except ValueError:
        return math.inf
    return number if math.isfinite(number) else math.inf


def share_within(low: float, high: float) -> Callable[[str | float], float]:
    """The same, from ``low`` to ``high``."""

    def parse(text: str | float) -> float:
        value = share(text)
        if not low <= value <= high:
            raise typer.BadParameter(f"{text!r} must lie between {low:g} and {high:g}")
        return value

    return parse


def version(text: str) -> str:
    """v7, V7 or 7: the name of a version."""
    if not text.strip():  # an empty variable of a script
        raise typer.BadParameter("name a version, e.g. v7; `labelloop models` lists them")
    match = re.fullmatch(r"\s*[vV]?0*([0-9]{1,9})\s*", text)
    return f"v{int(match.group(1))}" if match else text.strip()


ProjectId = Annotated[
    int | None, typer.Option("--project", min=1, max=2**31 - 1, help="Id of a Label Studio project to adopt.")
]
Seeds = Annotated[
    int | None, typer.Option(min=0, max=MOST, help="Labels revealed at the start. Default: 40 for the digits, else 0.")
]
Limit = Annotated[int, typer.Option(min=1, max=MOST, help="Rows to show, at most.")]
Version = Annotated[
    str | None,
    typer.Argument(
        parser=version, metavar="[VERSION]", help="A version from `labelloop models`. Default: the champion."
    ),
]
