"""Small drawn images, two backbones and heads that know some of them, for the tests of reports."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any

import numpy as np
from PIL import Image

from labelloop.config.project import BackboneSpec
from labelloop.errors import ImageUnreadableError
from labelloop.model import net
from labelloop.model.head import Head
from labelloop.model.net import Backbone
from labelloop.records.evidence import Outcome, Verdict
from retrain_worker.heads.logistic import fit_head, rotate
from retrain_worker.report.inputs import Arm, Inputs, RunOrigin

HOSTILE = "<script>alert('x')</script>"
CLASSES = ("rows", "columns", HOSTILE)
ORIGIN = RunOrigin("Shapes & <b>more</b>", "run-1", "retrain", "2026-05-04T09:12:44Z", "5f2a", "9b1f", "0.1.0+3f2a")
HOLD = Verdict(Outcome.HOLD, ("not enough evidence: 24 test labels", 'on "shapes" <i>only</i>'))
HISTORY = {
    "epochs": [
        {"number": 1, "loss": 1.2, "validation_loss": 1.1, "validation_accuracy": 0.4, "rate": 0.1},
        {"number": 2, "loss": float("nan"), "validation_loss": None, "validation_accuracy": None, "rate": 0.1},
        {"number": 3, "loss": 0.7, "validation_loss": 0.8, "validation_accuracy": 0.7, "rate": 0.1},
    ],
    "best": 3, "images_per_s": 10.0, "waited_share": 0.0, "precision": "fp32", "resumed_at": 0,
}  # fmt: skip


def png(kind: int, number: int, side: int = 32) -> bytes:
    """Rows, columns or a checkerboard, of a width, a place and a colour of its own, under noise."""
    draw = np.random.default_rng([kind, number])
    place, width = draw.integers(0, 8), draw.integers(3, 6)
    y, x = (np.arange(side)[:, None] + place) // width % 2, (np.arange(side)[None] + place) // width % 2
    pattern = (y + 0 * x, x + 0 * y, (x + y) % 2)[kind][..., None] * draw.integers(60, 200, 3)
    noisy = pattern + 30 + draw.normal(0, 45, (side, side, 3))
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def uri_of(kind: int, number: int) -> str:
    return f"s3://images/{kind}/{number}.png"


def load(uri: str) -> bytes:
    """The image of a uri as `uri_of` writes it; those of class 9 are broken."""
    kind, number = uri.removesuffix(".png").split("/")[-2:]
    if kind == "9":
        raise ImageUnreadableError(f"<b>{uri}</b> is gone")
    return png(int(kind), int(number))


def pixels(**options: Any) -> Backbone:
    return net.build(BackboneSpec(**{"name": "pixels", **options}), [])


def small_cnn() -> Backbone:
    return net.build(BackboneSpec(name="small_cnn", image_size=32, options={"filters": [8, 16], "dense": 24}), [])


def head_of(backbone: Backbone, numbers: range, classes: tuple[str, ...] = CLASSES) -> Head:
    """Fitted on that many images of each of its classes."""
    pairs = [(k, n) for k, name in enumerate(CLASSES) if name in classes for n in numbers]
    features = backbone.features(np.stack([backbone.decode(png(k, n)) for k, n in pairs]))
    labels, groups = [CLASSES[k] for k, _ in pairs], [f"{k}/{n}" for k, n in pairs]
    return fit_head(rotate(features), labels, groups, classes=classes).head


def inputs(backbone: Backbone, **changes: Any) -> Inputs:
    """A challenger of 12 images a class, a champion of 4, on 8 test images a class."""
    pairs = [(k, n) for n in range(100, 108) for k in range(len(CLASSES))]
    given: dict[str, Any] = {
        "origin": ORIGIN, "verdict": HOLD, "classes": CLASSES,
        "challenger": Arm("v2", head_of(backbone, range(12)), backbone),
        "champion": Arm("v1", head_of(backbone, range(4)), backbone), "uris": tuple(uri_of(*p) for p in pairs),
        "labels": tuple(CLASSES[k] for k, _ in pairs), "load": load, "history": HISTORY, "timer": clock(),
    }  # fmt: skip
    return Inputs(**{**given, **changes})


def clock() -> Callable[[], float]:
    """Each look is a hundredth of a second after the last one."""
    ticks: Iterator[int] = iter(range(10**9))
    return lambda: next(ticks) / 100


class Page(HTMLParser):
    """What a browser would make of a page: tags with attributes, and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, tag: str, name: str) -> list[str]:
        return [found[name] or "" for t, found in self.tags if t == tag and name in found]
