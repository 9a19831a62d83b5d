"""Who gets requests: a backend that has looked at its models and is not about to stop."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from labelloop.config.settings import load_settings
from labelloop.errors import StorageError
from labelloop.objects.storage import MemoryStore, ObjectInfo
from ml_backend.app import make_app
from ml_backend.auth import AccessGate
from ml_backend.backend import Backend
from ml_backend.drain import announce
from tests.unit.worlds.backend import FakeReader, World, make_backend


class Moody(MemoryStore):
    """Storage that can be away."""

    away = False

    def get(self, key: str) -> bytes:
        self._here()
        return super().get(key)

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        self._here()
        return super().list(prefix, start_after=start_after)

    def _here(self) -> None:
        if self.away:
            raise StorageError("connection refused")


@pytest.fixture
def store() -> Moody:
    return Moody()


@pytest.fixture
def backend(store: Moody) -> Iterator[Backend]:
    world = World(store)
    world.deploy(world.add(world.backbone(), answer=1))
    started = make_backend(world, FakeReader())
    yield started
    started.stop()


def status(backend: Backend) -> int:
    gate = AccessGate(load_settings({"LABELLOOP_BACKEND_PASSWORD": "letmein"}))
    return make_app(backend, gate).test_client().get("/ready").status_code


def wait_ready(backend: Backend) -> None:
    end = time.monotonic() + 10
    while status(backend) != 200:
        assert time.monotonic() < end, "it never became ready"
        time.sleep(0.01)


def test_ready_needs_no_password_and_means_that_the_model_is_loaded(backend: Backend) -> None:
    assert status(backend) == 503
    backend.start()
    wait_ready(backend)
    assert [live.model.name for live in backend.live.all() if live.model] == ["v1"]


def test_not_ready_before_storage_was_reached_and_no_less_ready_when_it_goes(backend: Backend, store: Moody) -> None:
    store.away = True
    backend.start()
    time.sleep(0.2)  # ten polls
    assert status(backend) == 503
    store.away = False
    wait_ready(backend)
    store.away = True  # every other backend would be just as badly off: turning all away helps nobody
    time.sleep(0.1)
    assert status(backend) == 200


def test_a_backend_that_leaves_is_not_ready_but_well(backend: Backend) -> None:
    backend.start()
    wait_ready(backend)
    app = make_app(backend, AccessGate(load_settings({})))
    assert announce(app)
    assert app.test_client().get("/ready").status_code == 503
    assert app.test_client().get("/health").status_code == 200


def test_a_process_without_an_app_has_nobody_to_tell() -> None:
    assert not announce(None)
    assert not announce(lambda: None)
