"""Files of this machine, answered in this process by a version of a project."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelloop.decoding.square import Pixels, Square, decode
from labelloop.errors import ImageUnreadableError, SettingsError
from labelloop.images.reader import MAX_BYTES
from labelloop.model import net
from labelloop.objects.formats import UNREADABLE
from labelloop.records.batches import Guess
from labelloop.records.versions import Version
from labelloop.rules.schema import LabelRules
from labelloop.store.projects import ProjectRecord
from operations.batch.asked import named
from operations.batch.part import Part, Stat
from operations.deployment import Deployment
from operations.reporting import Report
from retrain_worker.exports import onnx_file, openvino_file
from retrain_worker.exports.example import NAME as EXAMPLE
from retrain_worker.exports.folder import DESCRIPTION
from retrain_worker.exports.formats import Format, Run
from retrain_worker.guesses import guesses, likeliest

READERS = 4
TOGETHER = 8
LARGEST = 4_000_000  # bytes of a description
RUNTIMES: dict[Format, Callable[[Path], Run]] = {Format.ONNX: onnx_file.run, Format.OPENVINO: openvino_file.run}
AT_ONCE = 64  # images whose pixels are held


@dataclass(frozen=True, slots=True)
class Model:
    """What answers files."""

    name: str
    decode: Callable[[bytes], Pixels]
    say: Callable[[Sequence[str], Pixels], list[Guess]]


def model_of(deployment: Deployment, record: ProjectRecord, version: Version, top: int) -> Model:
    """A version of a project, proven to be the one that was recorded."""
    registry = deployment.registry(record)
    head, kept = registry.head(version), registry.backbone(version.backbone)
    backbone = net.load(kept, registry.backbone_weights(kept), device=net.best_device())
    net.verify(backbone)
    names = LabelRules.of(record.config).names(head.labels)
    return Model(
        version.name, backbone.decode,
        lambda files, pixels: guesses(head, names, files, backbone.features(pixels), top),
    )  # fmt: skip


def exported_model(folder: Path, top: int) -> Model:
    """What `export-model` has written, in its own runtime; SettingsError where this is no such folder."""
    about = _description(folder)
    form = next((f for f in RUNTIMES if f == about["format"]), None)
    if form is None:
        others = " or ".join(RUNTIMES)
        raise SettingsError(f"{folder} is exported as {about['format']}: this command runs {others}; see its {EXAMPLE}")
    square, labels = Square.of(about["preprocessing"]["recorded"]), [str(label) for label in about["labels"]]
    run = RUNTIMES[form](folder)

    def say(files: Sequence[str], pixels: Pixels) -> list[Guess]:
        parts = [run(pixels[i : i + TOGETHER]) for i in range(0, len(pixels), TOGETHER)]
        rows = [p.probabilities if p.unseen is None else p.probabilities * (1 - p.unseen.reshape(-1, 1)) for p in parts]
        return likeliest(files, np.concatenate(rows), labels, top)

    return Model(str(about["version"]), lambda data: decode(data, square), say)


def _description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST / 1e6:.0f} MB")
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not (about["labels"] and about["format"] and about["version"] and about["preprocessing"]["recorded"]):
            raise ValueError("something is missing in it")
    except (OSError, *UNREADABLE) as error:
        raise SettingsError(
            f"{folder} is no folder that `labelloop export-model` wrote: {path.name}: {error}"
        ) from error
    return about


def answered(files: Sequence[Path], model: Model, part: Part, report: Report) -> Iterator[Guess]:
    """One for each file, in order. What ``part`` holds of the same file is not computed again."""
    done = 0
    with ThreadPoolExecutor(READERS) as pool:
        for group in (files[i : i + AT_ONCE] for i in range(0, len(files), AT_ONCE)):
            report(f"images, by {model.name}", done, len(files))
            stats = {path: _stat(path) for path in group}
            new = [path for path in group if part.done.get(named(path), (None,))[0] != stats[path]]
            found = dict(zip(new, pool.map(lambda path: _pixels(path, model), new), strict=True))
            readable = {named(path): pixels for path, pixels in found.items() if not isinstance(pixels, str)}
            said = model.say(list(readable), np.stack(list(readable.values()))) if readable else []
            said += [Guess(named(path), problem=why) for path, why in found.items() if isinstance(why, str)]
            by_name = {guess.file: guess for guess in said}
            part.add([(stats[path], by_name[named(path)]) for path in new])
            yield from (by_name.get(named(path)) or part.done[named(path)][1] for path in group)
            done += len(group)
    report(f"images, by {model.name}", len(files), len(files))


def _stat(path: Path) -> Stat:
    try:
        found = path.stat()
    except OSError:
        return Stat(-1, 0)
    return Stat(found.st_size, found.st_mtime_ns)


def _pixels(path: Path, model: Model) -> Pixels | str:
    try:
        if path.stat().st_size > MAX_BYTES:
            return f"it has more than {MAX_BYTES / 1e6:.0f} MB"
        return model.decode(path.read_bytes())
    except (OSError, ImageUnreadableError) as error:
        return str(error)
