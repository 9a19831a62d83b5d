"""Labelled examples in, the parts of a run out: fetched in parallel, decoded once, nothing of test or audit touched."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import structlog

from labelloop.config.training import Retrain
from labelloop.decoding.square import Pixels
from labelloop.errors import ImageUnreadableError, NotEnoughLabelsError, StorageError
from labelloop.images.reader import Reader
from labelloop.model.net import Backbone
from labelloop.records.images import Example
from labelloop.records.json import digest
from retrain_worker.evidence.collect import entering, one_per_unit
from retrain_worker.training.parts import Part, Parts, divide
from retrain_worker.training.pixel_cache import PixelCache

READERS = 8
AT_ONCE = 64  # images read ahead: what is decoded waits in memory
TRIES = 4
REST_S = 0.5

log = structlog.get_logger()
Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class PixelSource:
    """Where the pixels come from."""

    images: Reader
    backbone: Backbone
    cache: PixelCache
    contents: Mapping[str, str]  # uri -> hash of the bytes that were labelled


def parts_of(
    examples: Sequence[Example], source: PixelSource, policy: Retrain, class_min: int, report: Report
) -> Parts:
    """Train and validation part of agreed examples of the train split; NotEnoughLabelsError, StorageError."""
    agreed = list(one_per_unit(examples)[0].values())
    classes, _ = entering([e.label for e in agreed], class_min)
    if len(classes) < 2:
        raise NotEnoughLabelsError("a retrain needs two classes with enough labels each")
    learnable = [e for e in agreed if e.label in classes]
    divided = divide(learnable, policy.validation)
    lost = _fetch(source, learnable, report)
    train, validation = ([e for e in part if source.contents[e.uri] not in lost] for part in divided)
    if len({e.label for e in train}) < 2:
        raise NotEnoughLabelsError("too few labelled images can be read: a retrain needs two classes")
    return Parts(_part(source, train, classes), _part(source, validation, classes), classes)


def _part(source: PixelSource, examples: Sequence[Example], classes: Sequence[str]) -> Part:
    targets = np.array([classes.index(e.label) for e in examples], dtype=np.int64)
    images = source.cache.images([source.contents[e.uri] for e in examples])
    return Part(images, targets, np.array([e.weight for e in examples], dtype=np.float32))


def _fetch(source: PixelSource, examples: Sequence[Example], report: Report) -> set[str]:
    """Bring the cache up to date; content hashes that cannot be had any more."""
    missing = set(source.cache.missing([source.contents[e.uri] for e in examples]))
    todo = list({source.contents[e.uri]: e.uri for e in examples if source.contents[e.uri] in missing}.values())
    lost = set()
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(todo), AT_ONCE):
            some = todo[start : start + AT_ONCE]
            for uri, pixels in zip(some, pool.map(lambda u: _pixels(source, u), some), strict=True):
                if pixels is None:
                    lost.add(source.contents[uri])
                else:
                    source.cache.add(source.contents[uri], pixels)
            report("read the labelled images", start + len(some), len(todo))
    return lost


def _pixels(source: PixelSource, uri: str) -> Pixels | None:
    """None for an image that is gone, broken or no longer the one that was labelled: it is left out."""
    try:
        return source.backbone.decode(_labelled(source, uri))
    except ImageUnreadableError as error:
        log.warning("image left out", action="retrain", uri=uri, reason=str(error))
        return None


def _labelled(source: PixelSource, uri: str) -> bytes:
    data = _read(source.images, uri)
    if digest(data) != source.contents[uri]:
        raise ImageUnreadableError("its bytes are not those that were labelled")
    return data


def _read(images: Reader, uri: str) -> bytes:
    """Tried again while storage has trouble; StorageError at the end."""
    for attempt in range(1, TRIES + 1):
        try:
            return images.read(uri)[0]
        except StorageError:
            if attempt == TRIES:
                raise
            time.sleep(REST_S * 2**attempt)
    raise AssertionError("unreachable")
