"""`python -m bench.exports`: each export of each network on real images: agreement, size, speed in its own runtime.

A linear head is fitted on some of the images, the export is checked on others, and int8 ranges come from the first.
Speed: images a second, one at a time, with the threads that the runtime takes of itself (torch: one); the served model
beside it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from embedded.environments import ensure_environment
from labelloop.config.networks import NETWORKS
from labelloop.config.project import BackboneSpec
from labelloop.config.settings import data_dir, load_settings
from labelloop.errors import LabelloopError
from labelloop.model import net
from labelloop.records.json import digest
from labelloop.rules.schema import LabelRules
from operations.projects.imagefolder import LabelledFile, scan
from retrain_worker.exports import onnx_file, openvino_file, torchscript_file
from retrain_worker.exports.check import measure
from retrain_worker.exports.export import Engine
from retrain_worker.exports.formats import Format, Outputs
from retrain_worker.exports.parts import Parts, Pixels
from retrain_worker.exports.tflite_file import LiteRt
from retrain_worker.heads.logistic import fit_head, rotate

FITTED = 300  # images the head learns from
TIMED, FIRST = 120, 20  # the second number is taken off: what a start costs


@dataclass(frozen=True)
class Figures:
    """One export."""

    network: str
    form: str
    images: int
    agreement: float
    largest_difference: float
    megabytes: float
    images_per_s: float
    write_s: float


@dataclass(frozen=True, slots=True)
class Remembering(Parts):
    """What the served model said is computed once for all formats."""

    said: dict[str, Outputs] = field(default_factory=dict)

    def reference(self, pixels: Pixels) -> Outputs:
        key = digest(pixels.tobytes())
        if key not in self.said:
            self.said[key] = Parts.reference(self, pixels)
        return self.said[key]


def prepared(name: str, files: list[LabelledFile], weights: list[Path]) -> tuple[Parts, Pixels]:
    """A model that knows the classes, and all images but those it learned from."""
    backbone = net.build(BackboneSpec(name=name), weights, offline=True)
    pixels = np.stack([backbone.decode(f.path.read_bytes()) for f in files])
    labels = [f.label or "" for f in files[:FITTED]]
    features = backbone.features(pixels[:FITTED])
    head = fit_head(rotate(features), labels, [f.key for f in files[:FITTED]], classes=tuple(sorted(set(labels)))).head
    return Remembering(backbone, head, LabelRules().names(head.labels)), pixels


def figures(name: str, parts: Parts, pixels: Pixels, form: Format, engine: Engine, *, quantised: bool) -> Figures:
    """Written, checked and timed."""
    with tempfile.TemporaryDirectory() as place:
        folder, began = Path(place), time.monotonic()
        engine.write(parts, folder, pixels[:FITTED] if quantised else None)
        took = time.monotonic() - began
        size = sum(path.stat().st_size for path in folder.iterdir())
        run, judged = engine.run(folder), pixels[FITTED:]
        found = measure(parts, run, judged, {}, quantised=quantised, report=lambda *_: None)
        step = TIMED if form is Format.TFLITE else 1  # that one is called in a process of its own, image by image
        seconds = _seconds(run, judged[:TIMED], step) - _seconds(run, judged[:FIRST], step)
    return Figures(
        name, f"{form}{' int8' if quantised else ''}", found.images, found.agreement, found.largest_difference,
        size / 1e6, (TIMED - FIRST) / seconds, took,
    )  # fmt: skip


def _seconds(run: object, pixels: Pixels, step: int) -> float:
    began = time.monotonic()
    for start in range(0, len(pixels), step):
        run(pixels[start : start + step])  # type: ignore[operator]
    return time.monotonic() - began


def served(name: str, parts: Parts, pixels: Pixels) -> Figures:
    """The model as the backend runs it, for comparison."""
    seconds = _seconds(parts.reference, pixels[FIRST:TIMED], 1)
    size = (len(net.dump(parts.backbone)) + len(parts.classifier.dump())) / 1e6
    return Figures(name, "as served", 0, 1.0, 0.0, size, (TIMED - FIRST) / seconds, 0.0)


def engines(*, tflite: bool) -> Iterator[tuple[Format, Engine]]:
    """Those that can be had."""
    yield from ((Format.ONNX, onnx_file), (Format.OPENVINO, openvino_file), (Format.TORCHSCRIPT, torchscript_file))
    if tflite:
        yield Format.TFLITE, LiteRt(ensure_environment("litert", print))


def main() -> None:
    """A line for each export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, default=(data_dir() or Path()) / "caltech20", help="class folders")
    parser.add_argument("--count", type=int, default=1000, help="images that each export is checked on")
    parser.add_argument("--networks", default=f"{NETWORKS[0].name},mobilenetv2_100")
    parser.add_argument("--tflite", action="store_true", help="also TFLite; builds its environment (6 GB) if need be")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = [f for f in scan(given.images, "") if f.label]
    files = [found[i] for i in np.random.default_rng(0).permutation(len(found))]
    for name in given.networks.split(","):
        parts, pixels = prepared(name, files[: given.count + FITTED], list(load_settings().weights_dirs))
        _show(served(name, parts, pixels[FITTED:]))
        for form, engine in engines(tflite=given.tflite):
            for quantised in (False, True):
                if not (quantised and form is Format.TORCHSCRIPT):
                    try:
                        _show(figures(name, parts, pixels, form, engine, quantised=quantised))
                    except LabelloopError as error:
                        print(f"{name} {form}: {error}", flush=True)


def _show(row: Figures) -> None:
    print(
        f"{row.network:22} {row.form:15} {row.images:5} images  same class {row.agreement:.3f}  largest difference "
        f"{row.largest_difference:.1e}  {row.megabytes:5.1f} MB  {row.images_per_s:6.1f} images/s", flush=True,
    )  # fmt: skip
    print(json.dumps(asdict(row)), flush=True)


if __name__ == "__main__":
    main()
