"""Files of this machine, answered in this process by a version of a project."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labelloop.decoding.square import Pixels
from labelloop.errors import ImageUnreadableError
from labelloop.images.reader import MAX_BYTES
from labelloop.model import net
from labelloop.records.batches import Guess
from labelloop.records.versions import Version
from labelloop.rules.schema import LabelRules
from labelloop.store.projects import ProjectRecord
from operations.batch.asked import named
from operations.batch.part import Part, Stat
from operations.deployment import Deployment
from operations.reporting import Report
from retrain_worker.guesses import guesses

READERS = 4
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
