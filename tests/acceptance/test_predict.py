"""`labelloop predict` on a real stack: images in S3 by its workers, files by the command, the same answers."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import time
from pathlib import Path, PurePosixPath

import pytest

from labelloop.store.batches import PREFIX
from tests.acceptance.conftest import LABELLOOP, Loop, labelloop, until


def answers(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    by_name = {PurePosixPath(row["file"]).name: row for row in rows}
    assert len(by_name) == len(rows)  # nothing twice
    return by_name


@pytest.mark.long(seconds=90)
def test_workers_and_the_command_say_the_same_and_a_killed_batch_goes_on(loop: Loop, tmp_path: Path) -> None:
    until(lambda: loop.live() is not None, what="a first model")
    place, version, store = loop.project.image_uri, str(loop.live()), loop.deployment.within(loop.project)
    out = tmp_path / "s3.csv"
    words = ["predict", place, "--out", str(out), "--version", version, "--state-dir", str(loop.home)]
    begun = subprocess.Popen([LABELLOOP, *words], stderr=subprocess.DEVNULL)
    until(lambda: list(store.list(PREFIX)) or begun.poll() is not None, what="a batch")
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    said = json.loads(labelloop(*words, "--json"))
    truth = {PurePosixPath(uri).name: label for uri, label in loop._truth.items()}
    assert said["images"] == len(truth)
    assert said["errors"] == 0
    by_workers = answers(out)
    assert by_workers.keys() == truth.keys()
    assert {row["version"] for row in by_workers.values()} == {version}
    right = sum(by_workers[name]["label"] == truth[name] for name in truth)
    assert right > len(truth) * 0.3  # of ten classes
    until(lambda: not list(store.list(PREFIX)), 10, "an end of the batch")

    files = tmp_path / "files"
    files.mkdir()
    bucket = place.removeprefix("s3://").partition("/")[0]
    for name in list(truth)[:30]:
        key = place.removeprefix(f"s3://{bucket}/").rstrip("/") + f"/{name}"
        loop.deployment.s3.download_file(bucket, key, str(files / name))
    (files / "broken.png").write_bytes(b"no image")
    began = time.monotonic()
    labelloop("predict", files, "--out", tmp_path / "here.csv", "--version", version, "--state-dir", loop.home)
    assert time.monotonic() - began < 120
    here = answers(tmp_path / "here.csv")
    assert len(here) == 30
    for name, row in here.items():
        assert row["label"] == by_workers[name]["label"]
    assert "broken.png" in (tmp_path / "here.errors.csv").read_text()
    assert not (tmp_path / ".here.csv.part").exists()
