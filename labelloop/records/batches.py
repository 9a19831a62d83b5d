"""A batch: many images, one version, a line for each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Guess:
    """What a version says of one image; ``problem`` says why it says nothing."""

    file: str  # path or address, as it was asked for
    label: str = ""  # the likeliest class
    probability: float = 0.0  # of that class; low, too, where the image may be of a class that nobody has labelled
    top: tuple[tuple[str, float], ...] = ()  # the likeliest classes, best first
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """What was asked for. The version is one from beginning to end."""

    id: str
    place: str  # the address of a folder or of a list, as it was asked for
    version: str
    top: int  # classes for each image
    count: int  # images
    shards: int
    made_at: str
    by: str
