"""An object's key in, how many bytes of it are read at most out; and compressed bytes, which may hide how many. Pure.

A record is small, whatever the project's size: what is larger was put there by somebody else, and is not read.
What grows with the images (catalogue, features, snapshots, orders, weights) has no limit here.
"""

from __future__ import annotations

import gzip
import io
import re

RECORD = 16 * 2**20
INFLATED = 2**29  # a hundred times the shard of a project with millions of answers
OF_A_PROJECT = "projects/any/"  # before a key that is known only within its project
_RECORDS = re.compile(
    r"(?:index|keys)/.+|projects/[^/]+/(?:copies/record\.json\.gz|copies/backbones/.+|backbones/(?:initial|[^/]+/backbone)\.json"
    r"|(?:deployments|models/versions|runs|requests|configs|studies|lr_curves)/.+|snapshots/latest\.json"
    r"|batches/.+|checkpoints/.+/note\.json|(?:paused|gc|set-up|curve)\.json)"
)


def inflated(raw: bytes, most: int = INFLATED) -> bytes:
    """The inverse of `gzip.compress`; one of `formats.UNREADABLE`. Few bytes may stand for any number."""
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it holds more than {most / 1e6:.0f} MB, and says nothing that takes so many")
    return data


def most_of(key: str) -> int | None:
    """By its key in the state bucket; None: as large as it is."""
    return RECORD if _RECORDS.fullmatch(key) else None


def too_large(size: int) -> str:
    """Why it is not read, in words."""
    return f"it has {size / 1e6:.0f} MB or more, and no record has more than {RECORD / 1e6:.0f}"
