"""What every format must hold: other heads, classes renamed since, preprocessing steps; and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import labelloop
from labelloop.config.project import BackboneSpec
from labelloop.decoding.square import Square, decode
from labelloop.errors import ConflictError, NotFoundError, SettingsError
from labelloop.model.ensemble import EnsembleHead
from labelloop.model.head import Head, Novelty
from labelloop.records.images import ImageFacts, Split
from labelloop.records.versions import BackboneRecord
from retrain_worker.exports import onnx_file, openvino_file, torchscript_file
from retrain_worker.exports.check import APART, Measured, measure
from retrain_worker.exports.example import example
from retrain_worker.exports.export import Pool, Wanted, chosen, export
from retrain_worker.exports.folder import Origin
from retrain_worker.exports.formats import Format, Outputs, Run, check_holds
from retrain_worker.exports.licence import NONE_NEEDED, licence_of
from retrain_worker.exports.parts import Parts
from retrain_worker.heads.ensemble import EnsembleRecipe, fit_ensemble
from tests.unit.worlds.exports import CLASSES, ExportWorld, cut, jpeg

ENGINES = (onnx_file, openvino_file, torchscript_file)
STEPS = [
    {"do": "blur", "kernel": 3, "sigma": 1.2}, {"do": "mask", "low": [0, 0, 40], "high": [180, 255, 250]},
    {"do": "hsv"}, {"do": "gray"},
]  # fmt: skip
SMALL = BackboneSpec(name="small_cnn", image_size=32, options={"filters": [8, 16], "dense": 24})
RECORD = BackboneRecord("id", "tf_efficientnet_lite0", {}, {}, 8, "", "")


@pytest.fixture(scope="module")
def world() -> ExportWorld:
    return ExportWorld(SMALL)


def three(world: ExportWorld) -> Head:
    """Three classes, two of them of one photograph."""
    head = world.head
    weight, bias = np.concatenate([head.weight, head.weight[:1] / 2]), np.append(head.bias, head.bias[:1])
    return Head((*head.labels, "temple"), weight, bias, temperature=0.7)


def nothing(*_: object) -> None:
    """Progress that nobody follows."""


def written(parts: Parts, engine: ModuleType, folder: Path) -> Run:
    engine.write(parts, folder, None)
    run: Run = engine.run(folder)
    return run


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.__name__.rsplit(".", 1)[-1])
@pytest.mark.parametrize("label_map", [{}, {"temple": "china"}, {"flower": None}], ids=["plain", "merged", "dropped"])
def test_calibration_and_classes_that_were_renamed_since_are_inside(
    engine: ModuleType, label_map: dict[str, str | None], world: ExportWorld, tmp_path: Path
) -> None:
    parts = world.parts(three(world), label_map)
    run, pixels = written(parts, engine, tmp_path), world.pixels(40)
    expected = parts.reference(pixels).probabilities
    for count in (1, 5, 40):  # of any number of images
        found = run(pixels[:count])
        assert found.unseen is None
        assert np.abs(found.probabilities - expected[:count]).max() < 1e-5
    assert expected.shape == (40, 3 - len(label_map))
    assert np.allclose(expected.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda e: e.__name__.rsplit(".", 1)[-1])
def test_what_nobody_has_labelled_yet_is_a_second_output(
    engine: ModuleType, world: ExportWorld, tmp_path: Path
) -> None:
    draw = np.random.default_rng(0)
    means = draw.normal(size=world.head.weight.shape).astype(np.float32)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    novelty = Novelty(world.features.mean(axis=0) / 10, means, 6.0, 1.0)
    parts = world.parts(replace(world.head, novelty=novelty))
    pixels = world.pixels(40)
    expected, found = parts.reference(pixels), written(parts, engine, tmp_path)(pixels)
    assert expected.unseen is not None
    assert found.unseen is not None
    assert np.ptp(expected.unseen) > 0.05  # else a constant would do
    assert np.abs(found.unseen - expected.unseen).max() < 1e-5
    assert np.abs(found.probabilities - expected.probabilities).max() < 1e-5


@pytest.fixture(scope="module")
def ensemble(world: ExportWorld) -> EnsembleHead:
    recipe = EnsembleRecipe(members=("random_forest", "xgboost_shallow", "lightgbm", "svm"))
    return fit_ensemble(world.features, world.labels, list(world.reader.images), classes=CLASSES, recipe=recipe).head


@pytest.mark.parametrize("label_map", [{}, {"flower": "china"}], ids=["plain", "merged"])
def test_an_ensemble_is_one_onnx_file(
    label_map: dict[str, str | None], ensemble: EnsembleHead, world: ExportWorld, tmp_path: Path
) -> None:
    parts = world.parts(replace(ensemble, temperature=1.7), label_map)
    import onnxruntime  # here: the last test looks at what an import alone would write

    head = onnxruntime.InferenceSession(onnx_file._voting(parts).SerializeToString())
    expected = parts.names.of(parts.classifier.probabilities(world.features))
    assert label_map or np.ptp(expected) > 0.3
    assert np.abs(head.run(None, {"features": world.features})[0] - expected).max() < 1e-6
    fresh = np.stack([world.backbone.decode(jpeg(cut(k, 1000 + n))) for k in (0, 1) for n in range(100)])
    found = measure(
        parts, written(parts, onnx_file, tmp_path), fresh, {}, quantised=False, report=nothing
    )  # fmt: skip
    found.check()  # on images that it did not learn from: a tree's threshold lies close to those
    assert found.stepwise


@pytest.mark.parametrize("form", [Format.OPENVINO, Format.TORCHSCRIPT, Format.TFLITE])
def test_an_ensemble_is_refused_in_words_where_trees_do_not_fit(form: Format, ensemble: EnsembleHead) -> None:
    with pytest.raises(SettingsError, match=f"ensemble of 4 members .* which {form} cannot hold. Use --to onnx"):
        check_holds(form, ensemble, quantised=False)


def test_torchscript_is_not_quantised(world: ExportWorld) -> None:
    with pytest.raises(SettingsError, match="cannot be quantised"):
        check_holds(Format.TORCHSCRIPT, world.head, quantised=True)


class Wrong:
    """Writes a file, and answers otherwise than the served model."""

    def __init__(self, parts: Parts, spoil: Any) -> None:
        self.parts, self.spoil = parts, spoil

    def write(self, parts: Parts, folder: Path, calibration: object) -> None:
        (folder / "model.onnx").write_bytes(b"model")

    def run(self, folder: Path) -> Run:
        assert (folder / "model.onnx").exists()
        return lambda pixels: Outputs(self.spoil(self.parts.reference(pixels).probabilities))


def facts(world: ExportWorld, split: Split) -> Sequence[ImageFacts]:
    return [ImageFacts(uri, "e", uri, uri, split) for uri in world.reader.images]


def attempt(world: ExportWorld, target: Path, spoil: Any, **changes: Any) -> Any:
    parts = world.parts()
    world.add(world.head)
    origin = Origin("two photos", world.registry.version("v1"), world.backbone.record, "none", "# card\n")
    pool = Pool(changes.pop("images", facts(world, Split.TEST)), world.reader)
    wanted = Wanted(Format.ONNX, target, **changes)
    return export(parts, origin, pool, wanted, engine=Wrong(parts, spoil), report=nothing)


def flipped(rows: Any) -> Any:
    """One answer of a batch is another class."""
    return np.concatenate([rows[:1, ::-1], rows[1:]])


@pytest.mark.parametrize(
    ("spoil", "quantised", "says"),
    [
        (flipped, False, "99.5% are needed. Use another format"),
        (lambda rows: rows[:, ::-1], True, "97.0% are needed. Leave --quantise out"),
        (lambda rows: rows + np.array([APART, -APART]) * 1.5, False, "0.01 is allowed"),
        (lambda rows: rows * np.nan, False, "not exported"),
    ],
)  # fmt: skip
def test_an_export_that_answers_otherwise_is_refused_and_leaves_nothing(
    spoil: Any, quantised: bool, says: str, world: ExportWorld, tmp_path: Path
) -> None:
    images = [*facts(world, Split.TEST)[:60], *facts(world, Split.TRAIN)[60:]] * 3  # more than are checked
    images = [replace(f, sha256=f"{i:04}") for i, f in enumerate(images)]
    with pytest.raises(ConflictError, match=says):
        attempt(world, tmp_path / "model", spoil, quantised=quantised, images=images)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_never_overwritten_and_images_are_needed(world: ExportWorld, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is there already"):
        attempt(world, tmp_path, lambda rows: rows)
    with pytest.raises(NotFoundError, match="no image could be read"):
        attempt(world, tmp_path / "model", lambda rows: rows, images=facts(world, Split.QUARANTINE))
    assert list(tmp_path.iterdir()) == []
    attempt(world, tmp_path / "model", lambda rows: rows)
    names = ["README.md", "classify.py", "labels.txt", "model.json", "model.onnx"]
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == names


@pytest.mark.parametrize(
    ("test", "train", "checks", "calibrate"), [(300, 1000, 200, 200), (20, 60, 50, 30), (0, 3, 1, 2), (5, 1, 5, 1)]
)
def test_no_image_checks_and_calibrates(test: int, train: int, checks: int, calibrate: int) -> None:
    splits = [Split.TEST] * test + [Split.TRAIN] * train + [Split.QUARANTINE]
    images = [ImageFacts(f"s3://i/{n}", "e", f"{n * 7919 % 5000:05}", "g", s) for n, s in enumerate(splits)]
    checked, calibrating = chosen(images, quantised=True)
    assert (len(checked), len(calibrating)) == (checks, calibrate)
    assert not {i.uri for i in checked} & {i.uri for i in calibrating}
    assert {i.bucket for i in calibrating} == {Split.TRAIN}
    assert [i.bucket for i in checked] == sorted((i.bucket for i in checked), key=[Split.TEST, Split.TRAIN].index)
    assert sum(i.bucket is Split.TEST for i in checked) == min(test, 200)
    same, none = chosen(images[::-1], quantised=False)
    assert none == []
    assert len(same) == min(test + train, 200)


@pytest.mark.parametrize("form", list(Format))
@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("unseen", [False, True])
def test_the_example_is_thirty_lines_of_python(form: Format, squash: bool, unseen: bool) -> None:
    source = example(form, Square(224, 1.0 if squash else 0.875, squash, "bicubic"), unseen=unseen)
    compile(source, "classify.py", "exec")
    assert len(source.splitlines()) <= 30
    assert max(map(len, source.splitlines())) <= 120
    assert "labelloop" not in source


@pytest.mark.parametrize("steps", [[], STEPS[:1], STEPS], ids=["none", "blur", "all"])
@pytest.mark.parametrize("squash", [False, True])
def test_pixels_of_the_example_are_those_of_the_served_model(steps: Any, squash: bool, tmp_path: Path) -> None:
    square = Square(48, 1.0 if squash else 0.8, squash, "bilinear", tuple(steps))
    source = example(Format.ONNX, square, unseen=False)
    start = source.index("def pixels")
    space: dict[str, Any] = {"np": np, "Image": Image}
    exec("import cv2\nfrom PIL import ImageOps\n" + source[start : source.index("for path in")], space)
    for number in range(4):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(jpeg(cut(number % 2, number)))
        assert np.array_equal(space["pixels"](path)[0], decode(path.read_bytes(), square))


@pytest.mark.parametrize(
    ("name", "came_from", "licence"),
    [
        ("tf_efficientnet_lite0", "efficientnet-lite0-57934424.pth of an installed package", "Apache-2.0 ("),
        ("mobilenetv2_100", "file mobilenetv2_100.tf2.safetensors", "going by the file's name"),
        ("mobilenetv2_100", "file mine.safetensors", "not known (file mine.safetensors)"),
        ("resnet18", "file resnet18.safetensors", "not known"),
        ("resnet18", "hub timm/resnet18.a1_in1k", "apache-2.0, as timm lists it"),
        ("resnet18", "random start, as asked", NONE_NEEDED), ("pixels", "built in, needs no weights", NONE_NEEDED),
    ],
)  # fmt: skip
def test_the_licence_of_weights_is_told_or_said_to_be_unknown(name: str, came_from: str, licence: str) -> None:
    assert licence in licence_of(replace(RECORD, name=name, provenance=came_from))


def test_an_ensemble_may_jump_on_few_images_and_no_other_model() -> None:
    few = Measured(200, {}, 1.0, 0.08, 0.0001, stepwise=True)
    few.check()
    with pytest.raises(ConflictError, match=r"up to 0\.08 off"):
        replace(few, stepwise=False).check()
    with pytest.raises(ConflictError, match=r"up to 0\.02 off"):
        replace(few, usual_difference=0.02).check()
    replace(few, stepwise=False, quantised=True).check()


def test_a_missing_second_output_counts_as_far_away(world: ExportWorld) -> None:
    novelty = Novelty(world.features.mean(axis=0), world.head.weight, 1.0, 0.0)
    parts = world.parts(replace(world.head, novelty=novelty))
    silent = measure(
        parts, lambda pixels: Outputs(parts.reference(pixels).probabilities), world.pixels(4), {}, quantised=False,
        report=nothing,
    )  # fmt: skip
    assert silent == Measured(4, {}, 1.0, float("inf"), float("inf"))
    with pytest.raises(ConflictError, match="not exported"):
        silent.check()


SILENT = """
import sys
from tests.unit.worlds.exports import ExportWorld
from tests.unit.exports.test_formats import SMALL
from retrain_worker.exports import onnx_file, openvino_file
from pathlib import Path
world = ExportWorld(SMALL, images=12)
for engine in (openvino_file, onnx_file):
    folder = Path(sys.argv[1]) / engine.__name__
    folder.mkdir()
    engine.write(world.parts(), folder, world.pixels(8))
    engine.run(folder)(world.pixels(2))
"""


def test_no_library_writes_into_the_home_folder_to_tell_of_its_use(tmp_path: Path) -> None:
    """Those that would send something first keep an identifier there."""
    (tmp_path / "home").mkdir()
    (tmp_path / "out").mkdir()
    root = Path(labelloop.__file__).parent.parent
    env = {"HOME": str(tmp_path / "home"), "PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", SILENT, str(tmp_path / "out")], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert [p for p in (tmp_path / "home").rglob("*") if p.is_file()] == []
