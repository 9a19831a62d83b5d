"""Exports of the default network, by the command, on photographs; then run with nothing but what was exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import cli.connect
import cli.here.exports
from cli.main import app
from labelloop.config.networks import NETWORKS
from labelloop.config.project import BackboneSpec
from tests.unit.worlds.exports import ExportWorld, classify, cut, jpeg

DEFAULT = BackboneSpec(name=NETWORKS[0].name)
EXIF = 0x0112


@pytest.fixture(scope="module")
def world() -> ExportWorld:
    world = ExportWorld(DEFAULT)
    world.add(world.head)
    return world


@pytest.fixture
def command(world: ExportWorld, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setattr(cli.connect, "open_deployment", lambda _: world.deployment())
    monkeypatch.setattr(cli.here.exports, "context_of", lambda _: world.context())
    return CliRunner()


def pictures(folder: Path) -> list[Path]:
    """Every kind of file that people have: turned, gray, of a palette, half transparent, of 16 bits."""
    folder.mkdir()
    image = cut(1, 900)
    turned = Image.Exif()
    turned[EXIF] = 6
    clear = image.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(image.size))
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 200)
    files = {
        "plain.jpg": jpeg(image), "turned.jpg": jpeg(image, exif=turned), "gray.jpg": jpeg(image.convert("L")),
        "large.jpg": jpeg(cut(0, 901).resize((2000, 1500))),
    }  # fmt: skip
    for name, data in files.items():
        (folder / name).write_bytes(data)
    clear.save(folder / "clear.png")
    image.quantize(32).save(folder / "palette.png")
    deep.save(folder / "deep.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("form", ["onnx", "openvino", "torchscript"])
def test_an_export_says_of_images_what_the_served_model_says(
    form: str, world: ExportWorld, command: CliRunner, tmp_path: Path
) -> None:
    target = tmp_path / "model"
    done = command.invoke(app, ["export-model", "v1", "--to", form, "--out", str(target), "--json"])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed["agreement"] == 1
    assert printed["largest_difference"] < 1e-4
    assert printed["splits"]["test"] == 27
    files = pictures(tmp_path / "pictures")
    said = classify(target, files)
    features = world.backbone.features(np.stack([world.backbone.decode(p.read_bytes()) for p in files]))
    served = world.head.probabilities(features)
    assert [s.label for s in said] == [world.head.labels[k] for k in served.argmax(axis=1)]
    assert np.abs([s.probability for s in said] - served.max(axis=1)).max() < 1e-3
