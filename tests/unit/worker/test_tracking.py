"""Runs are followed where a deployment wants it; a server that is not there costs no run."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labelloop.config.settings import load_settings
from labelloop.records.evidence import Evaluation, Outcome, Verdict
from retrain_worker.tracking import Mlflow, TensorBoard, TrackedResult, TrackedRun, Tracking, flat, tracking
from retrain_worker.training.fit import Epoch

ORIGIN = TrackedRun("digits", "main-1", "5f2a" * 8, "9b1f", flat({"backbone": {"name": "pixels"}, "epochs": 2}))
EPOCHS = (Epoch(1, 1.2, 1.1, 0.4, 0.1, 3.0, 0.1), Epoch(2, 0.7, 0.8, 0.7, 0.05, 3.0, 0.1))
ENDED = TrackedResult(
    "v3", replace(Evaluation("retrain", 10, 10, ("a", "b")), test_accuracy=0.9, ece=0.05),
    Verdict(Outcome.PROMOTE, ("the new backbone is better",)), "<!doctype html>",
)  # fmt: skip


def events(folder: Path) -> Iterator[Any]:
    """What TensorBoard would read: records of (length, checksum, bytes, checksum)."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.rglob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            yield Event.FromString(data[at + 12 : at + 12 + length])
            at += length + 16


def test_tensorboard_shows_curves_and_the_verdict(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, ORIGIN)
    for epoch in EPOCHS:
        board.epoch(epoch)
    board.end(ENDED)
    scalars, texts = {}, ""
    for event in events(tmp_path / "main-1" / ORIGIN.inputs):
        for value in event.summary.value:
            scalars[value.tag, event.step] = value.simple_value
            texts += "".join(part.decode() for part in value.tensor.string_val)
    assert scalars["epoch/validation_accuracy", 2] == pytest.approx(0.7)
    assert scalars["epoch/loss", 1] == pytest.approx(1.2)
    assert scalars["judged/test_accuracy", 0] == pytest.approx(0.9)
    assert "v3: promote" in texts
    assert "| backbone.name | pixels |" in texts


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """MLflow's own store, as its server has it."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/runs.db"


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_mlflow_gets_curves_figures_and_the_report_and_a_second_attempt_goes_on(
    mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # artefacts of this store lie in the working directory
    Mlflow(mlflow_uri, ORIGIN).epoch(EPOCHS[0])  # killed
    again = Mlflow(mlflow_uri, ORIGIN)
    for epoch in EPOCHS:
        again.epoch(epoch)
    again.end(ENDED)

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=mlflow_uri)
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["backbone.name"] == "pixels"
    assert run.data.metrics["judged_test_accuracy"] == pytest.approx(0.9)
    assert run.data.tags["labelloop.verdict"] == "promote"
    curve = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "validation_accuracy")}
    assert curve == {1: 0.4, 2: 0.7}
    assert [a.path for a in client.list_artifacts(run.info.run_id)] == ["report.html"]


class Broken:
    """Fails at its second epoch."""

    def __init__(self) -> None:
        self.asked = 0

    def epoch(self, epoch: Epoch) -> None:
        self.asked += 1
        if epoch.number == 2:
            raise OSError("disk full")

    def end(self, ended: TrackedResult) -> None:
        self.asked += 1


def test_what_fails_is_asked_no_more_and_each_epoch_is_told_once() -> None:
    broken, good = Broken(), Broken()

    def never() -> Broken:
        raise OSError("no such host")

    makers: list[Callable[[], Broken]] = [never, lambda: broken, lambda: good]
    followed = Tracking(makers)
    for epoch in (EPOCHS[0], EPOCHS[0]):
        followed.epoch(epoch)
    assert (broken.asked, good.asked) == (1, 1)
    followed.epoch(EPOCHS[1])
    followed.end(ENDED)
    assert (broken.asked, good.asked) == (2, 2)


@pytest.mark.filterwarnings("ignore")
def test_a_server_that_is_not_there_costs_no_run(tmp_path: Path) -> None:
    settings = load_settings({"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "LABELLOOP_TENSORBOARD_DIR": str(tmp_path)})
    followed = tracking(settings, ORIGIN)
    followed.epoch(EPOCHS[0])
    followed.end(ENDED)
    assert any(v.tag == "judged/ece" for e in events(tmp_path) for v in e.summary.value)
