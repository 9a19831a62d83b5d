"""A version in, a checked folder out. Written aside and renamed: what is refused or interrupted leaves nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from labelloop.errors import ImageUnreadableError, NotFoundError, SettingsError
from labelloop.images.reader import Reader
from labelloop.records.images import ImageFacts, Split
from retrain_worker.exports.check import Measured, Report, measure
from retrain_worker.exports.folder import Origin, describe
from retrain_worker.exports.formats import Format, Run, check_holds
from retrain_worker.exports.parts import Parts, Pixels

CHECKED = 200  # images that the export must answer as the served model does
CALIBRATING = 200  # images that ranges of int8 are taken from
READERS = 8
ORDER = (Split.TEST, Split.AUDIT, Split.TRAIN)  # where images to check come from; what calibrates comes from train


class Engine(Protocol):
    """Writes one format and runs it: a module of this room, or `Litert` with its environment."""

    def write(self, parts: Parts, folder: Path, calibration: Pixels | None) -> None:
        """The model's files into the folder."""

    def run(self, folder: Path) -> Run:
        """What was written, in the format's own runtime."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One export. ``target``: the folder, which is not there yet."""

    form: Format
    target: Path
    quantised: bool = False


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """What was written."""

    folder: Path
    form: Format
    measured: Measured
    size: int  # bytes of the model's files and those beside them
    licence: str


@dataclass(frozen=True, slots=True)
class Pool:
    """A project's images, and who reads them."""

    images: Sequence[ImageFacts]
    reader: Reader


def export(
    parts: Parts, origin: Origin, pool: Pool, wanted: Wanted, *, engine: Engine, report: Report
) -> ExportedModel:  # fmt: skip
    """SettingsError where the format cannot hold it, ConflictError where the check fails: then nothing is left."""
    check_holds(wanted.form, parts.classifier, quantised=wanted.quantised)
    if wanted.target.exists():
        raise SettingsError(f"{wanted.target} is there already: delete it, or name another place with --out")
    checked, calibrating = chosen(pool.images, quantised=wanted.quantised)
    calibration = None
    if wanted.quantised:
        calibration, _ = _read(parts, calibrating, pool.reader, "read images to calibrate by", report)
    pixels, splits = _read(parts, checked, pool.reader, "read images", report)
    aside = wanted.target.parent / f".{wanted.target.name}.{os.getpid()}.part"
    aside.mkdir(parents=True)
    try:
        report("convert", 0, 1)
        engine.write(parts, aside, calibration)
        report("convert", 1, 1)
        run = engine.run(aside)
        measured = measure(parts, run, pixels, splits, quantised=wanted.quantised, report=report)
        measured.check()
        describe(aside, wanted.form, parts, origin, measured, quantised=wanted.quantised)
        aside.rename(wanted.target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    size = sum(path.stat().st_size for path in wanted.target.iterdir())
    return ExportedModel(wanted.target, wanted.form, measured, size, origin.licence)


def chosen(images: Sequence[ImageFacts], *, quantised: bool) -> tuple[list[ImageFacts], list[ImageFacts]]:
    """Images that check, test images first, and others, of train, that ranges of int8 come from.

    Random for any purpose, and the same every time: by hash of their bytes. None is in both, or the check would see its
    own ranges.
    """
    usable = {i.sha256: i for i in images if i.sha256 and not i.problem and i.bucket in ORDER}
    train = sorted(sha for sha, i in usable.items() if i.bucket is Split.TRAIN)
    calibrating = train[: min(CALIBRATING, (len(train) + 1) // 2)] if quantised else []
    checked = [i for sha, i in usable.items() if sha not in set(calibrating)]
    checked.sort(key=lambda i: (ORDER.index(i.bucket), i.sha256))
    return checked[:CHECKED], [usable[sha] for sha in calibrating]


def _read(
    parts: Parts, images: Sequence[ImageFacts], reader: Reader, what: str, report: Report
) -> tuple[Pixels, Mapping[str, int]]:
    """(n, 3, size, size), and how many of which split; those that cannot be read are left out."""
    squares: list[Pixels] = []
    splits: dict[str, int] = {}
    with ThreadPoolExecutor(READERS) as threads:
        for number, (facts, square) in enumerate(
            zip(images, threads.map(_reading(parts, reader), images), strict=True), 1
        ):
            if square is not None:
                squares.append(square)
                splits[facts.bucket.value] = splits.get(facts.bucket.value, 0) + 1
            report(what, number, len(images))
    if not squares:
        raise NotFoundError(
            f"no image could be read to {'calibrate' if 'calibrate' in what else 'check'} the export with: it needs "
            "images of the project. `labelloop doctor` says whether they can be read"
        )
    return np.stack(squares), splits


def _reading(parts: Parts, reader: Reader) -> Callable[[ImageFacts], Pixels | None]:
    def read(facts: ImageFacts) -> Pixels | None:
        try:
            return parts.backbone.decode(reader.read(facts.uri)[0])
        except ImageUnreadableError:
            return None

    return read
