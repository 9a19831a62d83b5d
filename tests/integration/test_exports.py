"""`labelloop export-model` as a person types it, where nothing but object storage can be reached."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from embedded.environments import ensure_environment
from labelloop.config.project import BackboneSpec
from labelloop.config.settings import load_settings
from labelloop.objects.s3_client import s3_client
from labelloop.objects.storage import S3Store
from labelloop.records.json import digest
from tests.integration.conftest import KEYS
from tests.unit.worlds.exports import PREFIX, ExportWorld, classify, cut, jpeg

ROOT = Path(__file__).parents[2]
SPEC = BackboneSpec(name="small_cnn", image_size=32, options={"filters": [8, 16], "dense": 24})
NOBODY = "127.0.0.1:1"


class Place:
    """A project in real buckets."""

    def __init__(self, endpoint: str, folder: Path) -> None:
        self.env = {
            "LABELLOOP_S3_ENDPOINT": endpoint, **KEYS, "LABELLOOP_STUDIO_URL": f"http://{NOBODY}",
            "LABELLOOP_REDIS_URL": f"redis://{NOBODY}/0",
            "LABELLOOP_STATE_BUCKET": f"exports-{digest(folder.name.encode())[:12]}",
            "LABELLOOP_IMAGE_BUCKETS": "images", "LABELLOOP_CACHE_DIR": str(folder / "cache"),
            "PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        settings = load_settings(self.env)
        s3 = s3_client(settings)
        for bucket in (settings.state_bucket, "images"):
            with suppress(s3.exceptions.BucketAlreadyOwnedByYou, s3.exceptions.BucketAlreadyExists):  # tests share it
                s3.create_bucket(Bucket=bucket)
        self.world = ExportWorld(SPEC, root=S3Store(s3, settings.state_bucket))
        for uri, data in self.world.reader.images.items():
            s3.put_object(Bucket="images", Key=uri.removeprefix("s3://images/"), Body=data)
        s3.close()

    def export(self, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli.main", "export-model", "v1", *words], env=self.env, cwd=folder,
            capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture
def place(s3_endpoint: str, tmp_path: Path) -> Place:
    place = Place(s3_endpoint, tmp_path)
    place.world.add(place.world.head)
    return place


def test_the_command_writes_a_folder_that_runs_and_refuses_in_words(place: Place, tmp_path: Path) -> None:
    done = place.export("--to", "torchscript", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "two-photos-v1-torchscript: " in done.stdout
    assert "Same class as the served model on 100.0% of 80 images" in done.stdout
    again = place.export("--to", "torchscript", folder=tmp_path)
    assert again.returncode == 1
    assert "is there already: delete it" in again.stderr
    refused = place.export("--to", "torchscript", "--quantise", folder=tmp_path)
    assert refused.returncode == 1
    assert "cannot be quantised" in refused.stderr
    (tmp_path / "photo.jpg").write_bytes(jpeg(cut(1, 77)))
    assert [s.label for s in classify(tmp_path / "two-photos-v1-torchscript", [tmp_path / "photo.jpg"])] == ["flower"]


def test_predict_runs_an_exported_model_without_any_stack(place: Place, tmp_path: Path) -> None:
    for form in ("onnx", "openvino"):
        assert place.export("--to", form, folder=tmp_path).returncode == 0
    photos = tmp_path / "photos"
    photos.mkdir()
    for kind in (0, 1):
        for n in range(5):
            (photos / f"{kind}{n}.jpg").write_bytes(place.world.reader.images[f"{PREFIX}{kind}-{n}.jpg"])
    alone = {**place.env, "LABELLOOP_S3_ENDPOINT": f"http://{NOBODY}"}

    def predict(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli.main", "predict", "photos", *words]
        return subprocess.run(command, env=alone, cwd=tmp_path, capture_output=True, text=True, check=False)

    said = {}
    for form in ("onnx", "openvino"):
        done = predict("--model", f"two-photos-v1-{form}", "--out", f"{form}.csv")
        assert done.returncode == 0, done.stderr
        with (tmp_path / f"{form}.csv").open(newline="") as file:
            said[form] = {row["file"]: (row["label"], float(row["probability"])) for row in csv.DictReader(file)}
    assert len(said["onnx"]) == 10
    expected = classify(tmp_path / "two-photos-v1-onnx", sorted(photos.iterdir()))
    for (file, (label, probability)), one in zip(said["onnx"].items(), expected, strict=True):
        assert label == one.label
        assert said["openvino"][file] == (label, pytest.approx(probability, abs=1e-4))
    about = tmp_path / "two-photos-v1-onnx" / "model.json"
    about.write_text(about.read_text().replace('"format": "onnx"', '"format": "torchscript"'))
    refused = predict("--model", "two-photos-v1-onnx", "--out", "o.csv")
    assert refused.returncode == 1
    assert "this command runs onnx or openvino" in refused.stderr
    nothing = predict("--model", "photos", "--out", "o.csv")
    assert "is no folder that `labelloop export-model` wrote" in nothing.stderr


@pytest.mark.skipif(not (ROOT / ".venvs" / "litert").is_dir(), reason="6 GB that `export-model --to tflite` fetches")
def test_tflite_in_its_own_environment(place: Place, tmp_path: Path) -> None:
    python = ensure_environment("litert")
    for words, name in (((), "two-photos-v1-tflite"), (("--quantise",), "two-photos-v1-tflite-int8")):
        done = place.export("--to", "tflite", *words, "--json", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        printed = json.loads(done.stdout)
        assert printed["agreement"] == 1 if not words else printed["agreement"] >= 0.97
        assert words or printed["largest_difference"] < 1e-4
        files = [tmp_path / f"{k}{n}.jpg" for k in (0, 1) for n in range(5)]
        for path in files:
            path.write_bytes(place.world.reader.images[f"{PREFIX}{path.stem[0]}-{path.stem[1]}.jpg"])
        pixels = np.stack([place.world.backbone.decode(path.read_bytes()) for path in files])
        served = place.world.parts().reference(pixels).probabilities
        said = np.array([s.probability for s in classify(tmp_path / name, files, python=python)])
        assert np.abs(said - served.max(axis=1)).max() < (0.25 if words else 1e-3)
