"""A backend with keys, over the same small deployment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from flask.testing import FlaskClient

from labelloop.config.settings import load_settings
from labelloop.records.api_keys import Scope
from labelloop.store.api_keys import ApiKeyStore
from labelloop.web.callers import Callers
from labelloop.web.known_keys import KnownKeys
from ml_backend.app import make_app
from ml_backend.auth import AccessGate
from ml_backend.backend import Backend
from ml_backend.classify.service import Classifier
from tests.unit.worlds.backend import FakeReader, World, make_backend

PASSWORD = "of-the-backend"


@dataclass
class ApiWorld:
    """A running backend; ``key`` may predict."""

    world: World
    reader: FakeReader
    backend: Backend
    client: FlaskClient
    store: ApiKeyStore
    known: KnownKeys
    key: str

    def made(self, *scopes: Scope, **more: Any) -> str:
        """Another key, which counts at once."""
        whole = self.store.add("test", scopes, by="anna", **more).whole
        self.known.read()
        return whole

    def classify(self, key: str | None = None, **request: Any) -> Any:
        """POST it."""
        headers = {"Authorization": f"Bearer {self.key if key is None else key}", **request.pop("headers", {})}
        return self.client.post("/v1/classify", headers=headers, **request)


@contextmanager
def api_world(world: World | None = None, images: dict[str, bytes] | None = None) -> Iterator[ApiWorld]:
    """Stopped at the end."""
    world, reader = world or World(), FakeReader(images or {})
    store = ApiKeyStore(world.store)
    known = KnownKeys(store)
    backend = replace(make_backend(world, reader), classifier=Classifier(Callers(known), reader))
    settings = load_settings({"LABELLOOP_BACKEND_PASSWORD": PASSWORD})
    app = make_app(backend, AccessGate(settings))
    made = ApiWorld(world, reader, backend, app.test_client(), store, known, "")
    made.key = made.made(Scope.PREDICT)
    backend.start()
    try:
        backend.live.get(world.record).settled(10)
        yield made
    finally:
        backend.stop()
