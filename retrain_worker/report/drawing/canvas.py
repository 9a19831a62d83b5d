"""Matplotlib figures in, self-contained SVG pictures out: no global figure, no date, the same bytes each time.

They stand in a page as images, so that no name in one can become markup. Letters stay letters: the browser has fonts
for scripts that matplotlib's lacks. Margins are therefore planned from the text, not measured.
"""

from __future__ import annotations

import io
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retrain_worker.report.drawing.pictures import address

POINTS = 72  # per inch
PIXELS = 96  # of CSS per inch
SIZE = 9.0  # points of a letter
LETTER = 0.62  # mean width of a letter by its size; wide ones take twice as much
WIDTH = 4.6  # inches: at this width letters can be read on a phone
LONGEST = 24  # letters of a name in a picture; the table has it whole
IN_LEGEND = 12
CHALLENGER, CHAMPION = "#0072b2", "#d55e00"  # told apart by colour-blind people, too (Okabe and Ito 2008)
INK, GRID = "#1f2933", "#d5dbe1"

_STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "labelloop", "font.sans-serif": ["DejaVu Sans"], "font.size": SIZE,
    "text.parse_math": False, "axes.edgecolor": "#8793a0", "axes.labelcolor": INK, "text.color": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6,
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "legend.fontsize": SIZE,
}  # fmt: skip
_NO_DATE = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure for a page."""

    source: str  # data address
    alt: str  # what it shows, in words
    width: int  # CSS pixels at which its letters have their size

    @property
    def least(self) -> int:
        """CSS pixels below which its letters cannot be read."""
        return round(0.76 * self.width)


@contextmanager
def drawing() -> Iterator[None]:
    """Our style; a letter that matplotlib has no shape for is the browser's to draw."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def plot(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in inches from the lower left corner."""
    whole_width, whole_height = figure.get_size_inches()
    return figure.add_axes((left / whole_width, bottom / whole_height, width / whole_width, height / whole_height))


def picture(figure: Figure, alt: str) -> Picture:
    """Its SVG as a data address; call it inside `drawing`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata=_NO_DATE)
    return Picture(address("image/svg+xml", buffer.getvalue()), alt, round(figure.get_size_inches()[0] * PIXELS))


def short(name: str, most: int = LONGEST) -> str:
    """A name on one line, without control characters, at most so many letters wide."""
    line = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    if letters(line) <= most:
        return line
    while letters(line) > most - 1:
        line = line[:-1]
    return f"{line.rstrip()}…"


def letters(text: str) -> int:
    """How many letters wide a text is; Chinese and the like count twice."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def inches(text: str, size: float = SIZE) -> float:
    """How wide a line is at most."""
    return letters(text) * LETTER * size / POINTS
