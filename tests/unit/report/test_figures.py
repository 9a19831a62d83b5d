"""Pictures are whole: nothing leaves them, names cannot break them, and they are the same each time."""

from __future__ import annotations

import base64
import re
from typing import Any

import numpy as np
import pytest
from defusedxml.ElementTree import fromstring

from labelloop.rules.intervals import Interval
from retrain_worker.report.drawing.canvas import LONGEST, Picture, letters, short
from retrain_worker.report.drawing.class_figures import MOST, confusion_picture, recall_picture
from retrain_worker.report.drawing.figures import learning_picture, reliability_picture, robustness_picture
from retrain_worker.report.measures import Measures, measure
from retrain_worker.report.robustness import DISTURBANCES, Robustness
from tests.unit.worlds.report import HISTORY, HOSTILE

SVG = "{http://www.w3.org/2000/svg}"
NAMES = (
    "cat",
    HOSTILE,
    "a $x^2$ & -->",
    "長い名前の分類項目を持つ画像",
    "a name that never seems to come to its end",
    "ü\x00\n\tx",
)


def svg(picture: Picture) -> Any:
    head, _, data = picture.source.partition(",")
    assert head == "data:image/svg+xml;base64"
    return fromstring(base64.b64decode(data), forbid_dtd=False)


def texts(picture: Picture) -> list[tuple[str, Any]]:
    return [("".join(node.itertext()), node) for node in svg(picture).iter(f"{SVG}text")]


def words(picture: Picture) -> str:
    return "\n".join(text for text, _ in texts(picture))


def measured(classes: int, n: int = 300, seed: int = 0) -> Measures:
    """Some hundred answers over so many classes; the last class has no labels."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, classes - 1, n)
    probabilities = draw.dirichlet(np.ones(classes) * 0.3, n).astype(np.float32)
    probabilities[np.arange(n), truth] += 0.6
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    names = tuple(NAMES[k] if k < len(NAMES) else f"class {k}" for k in range(classes))
    found = measure(probabilities, truth, names, names)
    assert found is not None
    return found


def robust(drop: float) -> list[Robustness]:
    return [
        Robustness(d.kind, d.severity, Interval(0.9, 0.8, 1.0), Interval(0.9 - drop, 0.7, 0.95), drop, 0.1)
        for d in DISTURBANCES
    ]


def everything(classes: int) -> dict[str, Picture]:
    ours, theirs = ("v12", measured(classes)), ("v11", measured(classes, seed=1))
    learning, robustness = learning_picture(HISTORY), robustness_picture(("v12", robust(0.05)), ("v11", robust(0.1)))
    assert learning
    assert robustness
    return {
        "confusion": confusion_picture(*ours), "reliability": reliability_picture(ours, theirs),
        "recall": recall_picture(ours, theirs), "alone": recall_picture(ours, None),
        "learning": learning, "robustness": robustness,
    }  # fmt: skip


@pytest.fixture(scope="module", params=[2, 6, 30])
def pictures(request: pytest.FixtureRequest) -> dict[str, Picture]:
    return everything(request.param)


def extent(node: Any, text: str) -> tuple[float, float, float, float]:
    """Left, right, top and bottom of a text in the picture's units, by a generous guess of its width."""
    style, turn = node.get("style", ""), node.get("transform", "")
    size = float(re.search(r"([\d.]+)px", style).group(1))  # type: ignore[union-attr]
    anchor = (re.search(r"text-anchor: (\w+)", style) or [None, "start"])[1]
    place = re.search(r"translate\(([-\d.]+) ([-\d.]+)\)", turn)
    x, y = map(float, place.groups() if place else (node.get("x"), node.get("y")))
    width = letters(text) * 0.6 * size
    start = {"start": 0.0, "middle": -width / 2, "end": -width}[anchor or "start"]
    angle = re.search(r"rotate\(([-\d.]+)", turn)
    if angle and abs(float(angle.group(1))) == 90:
        return x - size, x, y - start - width, y - start
    return x + start, x + start + width, y - size, y


def test_no_letter_leaves_its_picture(pictures: dict[str, Picture]) -> None:
    for name, picture in pictures.items():
        _, _, width, height = map(float, svg(picture).get("viewBox").split())
        assert picture.width == pytest.approx(width * 96 / 72, abs=1)
        found = texts(picture)
        assert len(found) > 3
        for text, node in found:
            left, right, top, bottom = extent(node, text)
            assert left >= -1, (name, text)
            assert right <= width + 1, (name, text)
            assert top >= -1, (name, text)
            assert bottom <= height + 1, (name, text)


def test_pictures_fetch_nothing_and_run_nothing(pictures: dict[str, Picture]) -> None:
    for picture in pictures.values():
        tree = svg(picture)
        assert not list(tree.iter(f"{SVG}script"))
        links = [v for node in tree.iter() for k, v in node.attrib.items() if k.endswith("href")]
        assert all(link.startswith("#") for link in links)
        assert "date" not in "".join(node.tag.lower() for node in tree.iter())


def test_pictures_are_the_same_each_time_and_say_what_they_show() -> None:
    first, second = everything(6), everything(6)
    assert first == second
    assert all(len(picture.alt) > 20 for picture in first.values())


def test_names_stay_letters_on_one_line_and_are_cut_where_they_are_long() -> None:
    shown = words(confusion_picture("v1", measured(7)))
    for name in (HOSTILE[:20], "a $x^2$ & -->", "a name that never", "長い名前", "ü x"):
        assert name in shown
    assert short("ü\x00\n\tx") == "ü x"
    assert short("x" * 99) == "x" * (LONGEST - 1) + "…"
    assert letters(short("長" * 99)) <= LONGEST
    assert short("x" * LONGEST) == "x" * LONGEST


def test_the_confusion_matrix_shows_every_count() -> None:
    measures = measured(30)
    shown = [text for text, _ in texts(confusion_picture("v1", measures)) if text.isdigit()]
    assert sorted(map(int, shown)) == sorted(v for row in measures.confusion for v in row if v)


def test_of_very_many_classes_the_most_confused_are_shown_and_it_says_so() -> None:
    measures = measured(60, n=900)
    picture = confusion_picture("v1", measures)
    assert f"{MOST} of 60" in picture.alt
    wrong = [
        sum(row) - row[k] + sum(r[k] for r in measures.confusion) - row[k] for k, row in enumerate(measures.confusion)
    ]
    assert short(measures.classes[int(np.argmax(wrong))].name) in words(picture)
    weakest = min((c for c in measures.classes if c.recall), key=lambda c: c.recall.value if c.recall else 1)
    assert short(weakest.name) in words(recall_picture(("v1", measures), None))


def test_a_class_without_labels_says_so_in_its_place() -> None:
    assert words(recall_picture(("v1", measured(6)), None)).count("no test labels") == 1


def test_learning_curves_bear_losses_that_are_not_numbers_and_runs_without_a_validation_part() -> None:
    bare = {"epochs": [{"number": 1, "loss": float("inf"), "validation_loss": None, "validation_accuracy": None}]}
    picture = learning_picture(bare)
    assert picture
    assert words(picture).count("not measured") == 3
    assert learning_picture({"epochs": []}) is None
    assert robustness_picture(("v1", []), None) is None
