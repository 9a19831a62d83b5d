"""The API's front door over a small deployment whose Redis does not answer: most of it needs none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
from flask import Flask
from flask.testing import FlaskClient

from api.answers import Answers
from api.app import Api, make_app
from api.classify import Onward
from labelloop.queue.jobs import JobQueue
from labelloop.records.api_keys import Scope
from labelloop.store.api_keys import ApiKeyStore
from labelloop.web.callers import Callers
from labelloop.web.known_keys import KnownKeys
from tests.unit.worlds.operations import OpsWorld

NOWHERE = "http://127.0.0.1:1"
PROJECT = "main-1-0"


@dataclass
class Front:
    """Keys come from the bucket, as they do in a process."""

    ops: OpsWorld
    client: FlaskClient
    store: ApiKeyStore
    known: KnownKeys

    def key(self, *scopes: Scope, **more: Any) -> str:
        """A new one, which counts at once."""
        whole = self.store.add("test", scopes or tuple(Scope), by="anna", **more).whole
        self.known.read()
        return whole

    def ask(self, method: str, path: str, key: str = "", **more: Any) -> Any:
        """Without a key there is no header."""
        headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **more.pop("headers", {})}
        return self.client.open(path, method=method, headers=headers, **more)


def front(ops: OpsWorld | None = None, backend: Flask | None = None) -> Front:
    """Starts nothing. ``backend``: the app that has the models, called without a server between."""
    ops = ops or OpsWorld()
    object.__setattr__(ops.deployment, "queue", JobQueue(ops.deployment.queue.redis))
    store = ApiKeyStore(ops.root)
    known = KnownKeys(store)
    known.read()
    onward = Onward(NOWHERE, httpx.WSGITransport(app=backend) if backend else None)
    app = make_app(Api(Answers(ops.deployment), onward, Callers(known)))
    return Front(ops, app.test_client(), store, known)
