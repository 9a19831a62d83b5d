"""The front door of the REST API. ``gunicorn --config python:api.serve "api.app:create_app()"``."""

from __future__ import annotations

import atexit
import os
import socket
import threading
from dataclasses import dataclass, field

from flask import Response, jsonify
from flask_openapi3.openapi import OpenAPI

from api.answers import Answers
from api.classify import Onward
from api.document import add_document, documented
from api.door import ApiDoor
from api.edges import add_edges
from api.metrics import ApiMetrics, add_metrics
from api.pages import add_pages
from api.routes import v1
from labelloop.config.settings import Settings, load_settings
from labelloop.logs import configure_logs
from labelloop.objects.s3_client import s3_client
from labelloop.objects.storage import S3Store
from labelloop.queue.connection import redis_client
from labelloop.queue.heartbeat import Heartbeat
from labelloop.queue.jobs import JobQueue
from labelloop.store.api_keys import ApiKeyStore
from labelloop.store.projects import ProjectStore
from labelloop.web.callers import Callers
from labelloop.web.classify_types import MAX_BODY
from labelloop.web.exposition import expose
from labelloop.web.known_keys import KnownKeys
from labelloop.web.problems import ProblemError
from operations.deployment import Deployment

EXTENSION = "labelloop"  # where gunicorn's worker looks for what it tells to leave
DOOR = "labelloop-door"  # and for what is asked before a request's body is read


@dataclass(frozen=True)
class Api:
    """What the process is made of."""

    answers: Answers
    onward: Onward
    callers: Callers
    metrics: ApiMetrics = field(default_factory=ApiMetrics)
    leaving: threading.Event = field(default_factory=threading.Event)


def create_app(settings: Settings | None = None) -> OpenAPI:
    """The app with everything it needs, its threads running. Called in the worker process, after the fork."""
    settings = settings or load_settings()
    configure_logs(json=settings.log_json, service="api", secrets=settings.secrets)
    deployment = _deployment(settings)
    api = Api(Answers(deployment), Onward(settings.backend_url), Callers(KnownKeys(ApiKeyStore(deployment.store))))
    heart = Heartbeat(deployment.queue.redis, f"api:{socket.gethostname()}:{os.getpid()}", {"pid": os.getpid()})
    api.callers.keys.start()
    heart.start()
    atexit.register(heart.stop)
    expose(api.metrics.registry, settings)
    return make_app(api)


def make_app(api: Api) -> OpenAPI:
    """The handlers; starts nothing."""
    app = documented("api")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.url_map.merge_slashes = False  # another path is another path: 404, no redirect
    add_metrics(app, api.metrics)
    add_edges(app, api.callers)
    app.register_api(v1(api.answers, api.onward))
    add_document(app)
    add_pages(app)
    _add_probes(app, api)
    app.extensions[EXTENSION] = api
    app.extensions[DOOR] = ApiDoor(api.callers, api.metrics.refused)
    return app


def _add_probes(app: OpenAPI, api: Api) -> None:
    @app.route("/health", methods=["GET"])
    def health() -> Response:
        return jsonify({"status": "UP"})

    @app.route("/ready", methods=["GET"])
    def ready() -> Response:
        if api.leaving.is_set():
            raise ProblemError(503, "this process is about to stop")
        if not api.callers.keys.known():
            raise ProblemError(503, "the API keys were not read yet")
        return jsonify({"status": "READY"})


def _deployment(settings: Settings) -> Deployment:
    """Opens no connection yet."""
    s3 = s3_client(settings)
    store = S3Store(s3, settings.state_bucket)
    projects = ProjectStore(store, settings.studio_server)
    return Deployment(settings, s3, store, JobQueue(redis_client(settings)), projects)
