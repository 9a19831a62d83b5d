"""What is known of an image: which split it is of, which images are related to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Split(StrEnum):
    """What an image's label may be used for; decided once, at first sight."""

    TRAIN = "train"  # fits models; the only split the model chooses from
    TEST = "test"  # judges models
    AUDIT = "audit"  # only reports, stop advice and auto-label bounds
    QUARANTINE = "quarantine"  # near images of two groups, which may stand on both sides: neither trains nor judges


MOST_EARLIER = 20  # a camera may write its newest picture to one place for ever
JUDGING = frozenset({Split.TEST, Split.AUDIT})


@dataclass(frozen=True, slots=True)
class Bytes:
    """What a file held until other bytes were found in it."""

    sha256: str  # empty: not remembered any more
    until: str  # UTC ISO 8601


class Related:
    """What an image has in common with others."""

    __slots__ = ()
    group: str
    twin: str
    bucket: Split

    @property
    def twins(self) -> str:
        """Images of one picture. Its labels count once, and may contradict each other."""
        return self.twin or self.group

    @property
    def unit(self) -> str:
        """What counts once: a picture where it trains, a group of related ones where it judges."""
        return self.group if self.bucket in JUDGING else self.twins


@dataclass(frozen=True, slots=True)
class ImageFacts(Related):
    """What is known of one image's bytes; recorded once by `featurise`."""

    uri: str
    etag: str
    sha256: str = ""  # of the bytes; empty where they could not be read
    group: str = ""  # related images, which stand in one split; empty: not decided yet
    bucket: Split = Split.TRAIN
    problem: str | None = None  # why the image cannot be used
    phash: str = ""  # perceptual hash; empty: not looked at
    earlier: tuple[Bytes, ...] = ()  # what stood there before, oldest first; empty: the file was never overwritten
    middle: str = ""  # hash of the middle, by which relatives are sought; empty: not looked at
    twin: str = ""  # images proven to be one picture: the content hash of the first; empty in old records: the group

    @property
    def undecided(self) -> bool:
        """Read, and not in a split yet."""
        return bool(self.sha256) and not self.group

    def changed_after(self, moment: str) -> str | None:
        """When the bytes of that moment (UTC ISO 8601) were first missed; None where they stand there now.

        Of a file whose oldest bytes are not remembered any more, all old answers are of other bytes.
        """
        then = next((past for past in self.earlier if moment < past.until), None)
        return then.until if then and then.sha256 != self.sha256 else None

    def overwritten(self, sha256: str, moment: str) -> ImageFacts:
        """The same file with other bytes, found at that moment. What it is used for stays."""
        past = (*self.earlier, Bytes(self.sha256, moment))
        kept = (
            past if len(past) <= MOST_EARLIER else (replace(past[-MOST_EARLIER], sha256=""), *past[1 - MOST_EARLIER :])
        )
        return ImageFacts(self.uri, self.etag, sha256, bucket=self.bucket, earlier=kept)


@dataclass(frozen=True, slots=True)
class Example(Related):
    """One labelled image, ready to fit or judge: label collapsed, split known, features present."""

    task_id: int
    uri: str
    group: str
    bucket: Split
    label: str
    weight: float = 1.0  # how much it counts where models learn
    twin: str = ""  # images proven to be one picture; empty: the group
