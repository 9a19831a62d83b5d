"""An image in, its relatives among known ones out: candidates by hash, kinship by proof, copies apart from frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from labelloop.decoding.square import Pixels
from labelloop.likeness.near import NearIndex, hash_of
from labelloop.likeness.proof import GRAY, IDENTITY, PROVEN, Kinship, kinship, zoomed
from labelloop.likeness.windows import MIDDLE, Hit, Window, WindowIndex, window_words
from labelloop.records.arrays import Floats

CANDIDATES = 8  # that are looked at
CLOSE = 40  # bits: what lies further apart is related only where that is proven ...
FAR_CANDIDATES = 1  # ... and of that few are looked at
NEIGHBOURS = 15  # their median is what a camera sees anyway
FEWEST_NEIGHBOURS = 5
COPY = 0.3  # correlation of what two pictures have beyond their neighbours; frames of one camera have 0.1 to 0.2
STILL = 1.0  # gray levels: less than this beyond the neighbours is nothing at all
SHARE, LEAST, MOST = 0.05, 8, 32

AS_IT_LIES = Window(MIDDLE, 0.0, 0.0, mirrored=False)

Thumb = Callable[[str], Pixels | None]  # None: it cannot be read now


def crowd_cap(pool: int) -> int:
    """Images that look alike from which on they are frames of one camera, not copies. ``pool``: all images."""
    return min(max(math.ceil(SHARE * pool), LEAST), MOST)


@dataclass(frozen=True, slots=True)
class Relative:
    """A known image and what it is to the new one."""

    uri: str
    kinship: Kinship
    is_twin: bool  # proven the same, and not merely the same scene on a quiet day


class Relatives:
    """Looks at pairs, each once."""

    def __init__(self, index: WindowIndex, thumb: Thumb, earlier: NearIndex | None = None) -> None:
        """``earlier``: images that older releases kept with another hash."""
        self._index, self._thumb, self._earlier = index, thumb, NearIndex() if earlier is None else earlier
        self._kinships: dict[tuple[str, str], Kinship] = {}
        self._hits_by_uri: dict[str, tuple[int, list[Hit]]] = {}  # hits, and among how many images

    def of(self, uri: str, placed: Container[str], cap: int) -> list[Relative]:
        """Those among ``placed`` images, the nearest first; beyond ``cap`` that look alike only copies."""
        thumb = self._thumb(uri)
        if thumb is None:
            return []
        hits = self._hits(uri, thumb)
        there = [hit for hit in hits if hit.uri in placed]
        crowded = len(hits) >= cap
        usual = self._usual(hits) if crowded else None
        relatives = []
        for hit in _candidates(there):
            is_copy = not crowded or self._is_copy(thumb, hit, usual)
            if is_copy or len(there) < cap:
                kin = self.kinship(uri, hit)
                if kin in PROVEN or (hit.bits <= CLOSE and kin is not Kinship.STRANGER):
                    relatives.append(Relative(hit.uri, kin, is_copy and kin is Kinship.SAME))
        return relatives

    def _hits(self, uri: str, thumb: Pixels) -> list[Hit]:
        many = len(self._index) + len(self._earlier)
        among, hits = self._hits_by_uri.get(uri, (-1, []))
        if among != many:
            hits = [hit for hit in self._index.near(window_words(thumb)) if hit.uri != uri]
            uris = {uri, *(hit.uri for hit in hits)}
            earlier = [Hit(other, 0, AS_IT_LIES) for other in self._earlier.near(hash_of(thumb)) if other not in uris]
            hits = earlier + hits
            self._hits_by_uri[uri] = many, hits
        return hits

    def kinship(self, uri: str, hit: Hit) -> Kinship:
        """Of an image and one that looks like it."""
        pair = (uri, hit.uri)
        if pair not in self._kinships:
            one, other = self._thumb(uri), self._thumb(hit.uri)
            if one is None or other is None:
                return Kinship.UNSURE
            starts = (hit.window.guess, IDENTITY)
            self._kinships[pair] = kinship(_float(one), _float(other), starts, mirror=hit.window.mirrored)
        return self._kinships[pair]

    def is_same(self, uri: str, other: str) -> bool:
        """Whether two images are proven to be the same, with no guess of how they lie."""
        if uri == other:
            return True
        one, two = self._thumb(uri), self._thumb(other)
        if one is None or two is None:
            return False
        starts = (IDENTITY, zoomed(1.15), zoomed(0.87))
        return kinship(_float(one), _float(two), starts) is Kinship.SAME

    def _usual(self, hits: Sequence[Hit]) -> Floats | None:
        """The grain that all neighbours have: of those further away, so that no copy is among them."""
        thumbs = [self._thumb(hit.uri) for hit in hits[-NEIGHBOURS:]]
        grains = [_grain(thumb) for thumb in thumbs if thumb is not None]
        return np.median(np.stack(grains), axis=0) if len(grains) >= FEWEST_NEIGHBOURS else None

    def _is_copy(self, thumb: Pixels, hit: Hit, usual: Floats | None) -> bool:
        """Whether both share what their neighbours lack: grain, and not only the scene."""
        other = self._thumb(hit.uri)
        if other is None or usual is None:
            return False
        mine, theirs = _grain(thumb) - usual, _grain(other) - usual
        if max(float(mine.std()), float(theirs.std())) < STILL:
            return float(np.abs(mine - theirs).max()) < 8 * STILL
        return float(np.corrcoef(mine.ravel(), theirs.ravel())[0, 1]) >= COPY


def _candidates(hits: Sequence[Hit]) -> list[Hit]:
    close = [hit for hit in hits if hit.bits <= CLOSE]
    return (close + [hit for hit in hits if hit.bits > CLOSE][:FAR_CANDIDATES])[:CANDIDATES]


def _float(thumb: Pixels) -> Floats:
    return thumb.astype(np.float32)


def _grain(thumb: Pixels) -> Floats:
    """Fine structure, whatever the light."""
    gray = thumb.astype(np.float32) @ GRAY
    return np.asarray(gray - cv2.GaussianBlur(gray, (0, 0), 4), dtype=np.float32)
