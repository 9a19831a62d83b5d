"""One contract, two servers: our backend, and the stock one of label-studio-ml 2.x with our model in it.

The stock one is in no package index, so no lock can name it: where it is installed (docs/stock-server.md), it is tried.
"""

from __future__ import annotations

import importlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from labelloop.config.settings import load_settings
from labelloop.labels.results import make_label_config
from ml_backend.app import make_app
from ml_backend.auth import AccessGate
from ml_backend.backend import Backend
from tests.unit.backend.test_contract import TRAIN
from tests.unit.worlds.backend import CLASSES, PREFIX, FakeReader, World, make_backend, picture

CONFIG = make_label_config(CLASSES)


@dataclass
class Server:
    """A backend behind one of the servers."""

    world: World
    backend: Backend
    client: FlaskClient
    name: str

    def post(self, path: str, **body: Any) -> TestResponse:
        return self.client.post(path, json={"project": self.world.record.reference, **body})

    def serves(self, version: str) -> None:
        project, end = self.backend.live.get(self.world.record), time.monotonic() + 10
        while project.model is None or project.model.name != version:
            assert time.monotonic() < end, f"{version} is not served"
            time.sleep(0.005)


@pytest.fixture
def stock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Backend], FlaskClient]]:
    """The stock server. Its import keeps a database in a folder, and changes how processes of torch begin."""
    import torch.multiprocessing as processes

    before = processes.get_start_method(allow_none=True)
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))

    def client(backend: Backend) -> FlaskClient:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydantic, of how upstream writes its records
            init_app = importlib.import_module("label_studio_ml.api").init_app
            stock = importlib.import_module("ml_backend.stock")

        monkeypatch.setattr(stock, "serving", lambda: backend)
        served: FlaskClient = init_app(stock.LabelloopModel).test_client()
        return served

    yield client
    processes.set_start_method(before, force=True)
    for name in [n for n in sys.modules if n.partition(".")[0] == "label_studio_ml" or n == "ml_backend.stock"]:
        del sys.modules[name]


MISSING = pytest.mark.skipif(find_spec("label_studio_ml") is None, reason="label-studio-ml 2.x is not installed")


@pytest.fixture(params=["ours", pytest.param("stock", marks=MISSING)])
def server(request: pytest.FixtureRequest, stock: Callable[[Backend], FlaskClient]) -> Iterator[Server]:
    world = World()
    reader = FakeReader({f"{PREFIX}{seed}.png": picture(seed) for seed in TRAIN})
    backend = make_backend(world, reader)
    backend.start()
    ours = make_app(backend, AccessGate(load_settings({}))).test_client()
    yield Server(world, backend, ours if request.param == "ours" else stock(backend), request.param)
    backend.stop()


def tasks(count: int) -> list[dict[str, Any]]:
    return [{"id": seed, "data": {"image": f"{PREFIX}{seed}.png"}} for seed in TRAIN[:count]]


def test_health(server: Server) -> None:
    answer = server.client.get("/health")
    assert answer.status_code == 200
    said = answer.get_json()
    assert said["status"] == "UP"
    assert said["model_class"] == {"ours": "labelloop", "stock": "LabelloopModel"}[server.name]


def test_metrics(server: Server) -> None:
    assert server.client.get("/metrics").status_code == 200


def test_setup_names_the_version_that_answers(server: Server) -> None:
    for version in ("cold-start", "v1", "v2"):
        if version != "cold-start":
            server.world.deploy(server.world.add(server.world.backbone(), answer=1))
            server.serves(version)
        answer = server.post("/setup", schema=CONFIG, hostname="http://x", access_token="t", extra_params={"a": 1})
        assert answer.status_code == 200
        assert answer.get_json() == {"model_version": version}


def test_predict_follows_a_swap_and_a_rollback(server: Server) -> None:
    body = {"tasks": tasks(3), "label_config": CONFIG, "params": {"context": {}, "login": None, "password": None}}
    first = server.world.add(server.world.backbone(), answer=1)
    second = server.world.add(server.world.backbone(), answer=2)
    for version, label in ((first, "dog"), (second, "fox"), (first, "dog")):
        server.world.deploy(version)
        server.serves(version.name)
        results = server.post("/predict", **body).get_json()["results"]
        assert [r["model_version"] for r in results] == [version.name] * 3
        assert [r["result"][0]["value"] for r in results] == [{"choices": [label]}] * 3
        assert [r["result"][0]["type"] for r in results] == ["choices"] * 3


def test_predict_before_the_first_model(server: Server) -> None:
    answer = server.post("/predict", tasks=tasks(1), label_config=CONFIG)
    assert answer.status_code == 200
    (result,) = answer.get_json()["results"]
    assert (result["result"], result["model_version"]) == ([], "cold-start")


def test_webhook(server: Server) -> None:
    for event in ("ANNOTATION_CREATED", "START_TRAINING"):
        event_of = {"id": server.world.record.id, "label_config": CONFIG}
        answer = server.client.post("/webhook", json={"action": event, "project": event_of})
        assert answer.status_code == {"ours": 202, "stock": 201}[server.name]


def test_a_project_that_nobody_knows_is_no_success(server: Server) -> None:
    answer = server.client.post("/predict", json={"project": "99.1", "tasks": [], "label_config": CONFIG})
    assert answer.status_code == {"ours": 404, "stock": 500}[server.name]
    assert "labelloop init" in answer.text


def test_a_number_of_two_projects_is_not_guessed(server: Server) -> None:
    again = replace(server.world.record, created=server.world.record.created + 1)
    server.world.projects.put(again)
    answer = server.post("/predict", tasks=tasks(1), label_config=CONFIG)
    assert answer.status_code == {"ours": 200, "stock": 500}[server.name]
    assert (server.name == "ours") or "labelloop forget" in answer.text
