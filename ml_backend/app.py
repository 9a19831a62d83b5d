"""What Label Studio talks to: thin handlers over `Backend`. Run by ``gunicorn "ml_backend.app:create_app()"``."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable

import structlog
from flask import Flask, Response, g, jsonify, request
from prometheus_client import CONTENT_TYPE_LATEST
from werkzeug.exceptions import HTTPException

from labelloop.config.settings import Settings, load_settings
from labelloop.errors import (
    CorruptObjectError,
    FormatError,
    ImageUnreadableError,
    LabelConfigError,
    SettingsError,
    StorageError,
)
from labelloop.logs import configure_logs
from labelloop.web.browsers import asked_by_page
from ml_backend.auth import AccessGate
from ml_backend.backend import Backend, make_backend
from ml_backend.classify.route import add_classify, as_problem, is_ours
from ml_backend.contract import RequestError, action_of_event, body_of, problem, project_of_event, tasks_of, text_of
from ml_backend.entrance.door import MAX_BODY, NO_PAGES, RETRY, Door

MAX_HINT = 4 * 1024 * 1024  # of an event, which comes without a password and says nothing that the poll would not find
EXTENSION = "labelloop"  # where the app keeps its backend, for gunicorn's worker
DOOR = "labelloop-door"  # and what is asked before a request's body is read

log = structlog.get_logger()


def create_app(settings: Settings | None = None) -> Flask:
    """The app with everything it needs, its threads running. Called in the worker process, after the fork."""
    settings = settings or load_settings()
    configure_logs(json=settings.log_json, service="backend", secrets=settings.secrets)
    gate = AccessGate(settings)
    if gate.is_open:
        log.warning("LABELLOOP_BACKEND_PASSWORD is not set: everybody may get predictions", action="auth")
    backend = make_backend(settings)
    backend.start()
    atexit.register(backend.stop)
    return make_app(backend, gate)


def make_app(backend: Backend, gate: AccessGate) -> Flask:
    """The handlers over a backend; starts nothing."""
    app = Flask("ml_backend")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.extensions[EXTENSION] = backend
    _add_edges(app, backend, gate)
    _add_contract(app, backend)
    _add_views(app, backend, gate)
    add_classify(app, backend)
    callers = backend.classifier.callers if backend.classifier else None
    app.extensions[DOOR] = Door(gate, _refusals(app, backend), callers)
    return app


def _add_contract(app: Flask, backend: Backend) -> None:
    @app.post("/setup")
    def setup() -> Response:
        body = body_of(request)
        version = backend.setup(text_of(body, "project"), text_of(body, "schema"))
        return jsonify({"model_version": version})

    @app.post("/predict")
    def predict() -> Response:
        body = body_of(request)
        tasks = tasks_of(body)
        is_abandoned = request.environ.get("waitress.client_disconnected", lambda: False)
        results = backend.predict(text_of(body, "project"), text_of(body, "label_config"), tasks, is_abandoned)
        return jsonify({"results": results})

    @app.post("/webhook")
    def webhook() -> tuple[Response, int]:
        request.max_content_length = MAX_HINT
        body = body_of(request)
        queued = backend.nudge(project_of_event(body), action_of_event(body))
        return jsonify({"status": "queued" if queued else "busy"}), 202

    @app.get("/versions")
    def versions() -> Response:
        return jsonify(backend.versions(request.args.get("project", "")))


def _add_views(app: Flask, backend: Backend, gate: AccessGate) -> None:
    @app.get("/health")
    def health() -> Response:
        trusted = gate.knows(request.authorization)
        details = {"projects": backend.live.facts()} if trusted else {}
        return jsonify({"status": "UP", "model_class": "labelloop", **details})

    @app.get("/ready")
    def ready() -> Response:
        reason = backend.not_ready()
        return _again_where_it_helps(problem(reason, 503)) if reason else jsonify({"status": "READY"})

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(backend.metrics.text(), content_type=CONTENT_TYPE_LATEST)


def _add_edges(app: Flask, backend: Backend, gate: AccessGate) -> None:
    @app.before_request
    def before() -> Response | None:
        g.begun = time.perf_counter()
        if asked_by_page(request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")):
            return problem(NO_PAGES, 403)
        if not gate.goes_by(request):
            return problem("labelloop: this backend goes by another name (LABELLOOP_BACKEND_URL)", 403)
        if is_ours(request.path) or gate.permits(request):  # there, keys decide
            return None
        answer = problem("labelloop: wrong or missing basic auth user and password", 401)
        answer.headers["WWW-Authenticate"] = 'Basic realm="labelloop"'
        return answer

    @app.after_request
    def after(response: Response) -> Response:
        name = request.endpoint or "unknown"
        backend.metrics.requests.labels(name, str(response.status_code)).inc()
        backend.metrics.latency.labels(name).observe(time.perf_counter() - g.get("begun", time.perf_counter()))
        return response

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        return as_problem(error) if is_ours(request.path) else _as_response(error)


def _refusals(app: Flask, backend: Backend) -> Callable[[str, int], None]:
    """Counts what is refused before Flask has seen it, under the name that Flask would give it."""
    names = {rule.rule: rule.endpoint for rule in app.url_map.iter_rules()}
    return lambda path, status: backend.metrics.requests.labels(names.get(path, "unknown"), str(status)).inc()


def _as_response(error: Exception) -> Response:
    """The one place where errors become answers; nobody outside ever sees a stack."""
    match error:
        case RequestError():
            return _again_where_it_helps(problem(str(error), error.status))
        case LabelConfigError() | ImageUnreadableError():
            return problem(str(error), 400)
        case CorruptObjectError() | FormatError() | SettingsError():
            log.warning("an object is damaged", action="request", endpoint=request.endpoint, reason=str(error))
            return problem(str(error), 503)
        case StorageError():
            log.warning("object storage is away", action="request", endpoint=request.endpoint, reason=str(error))
            return _again_where_it_helps(problem("object storage cannot be reached; try again soon", 503))
        case HTTPException():
            return problem(error.description or error.name, error.code or 500)
    log.error("request failed", action="request", endpoint=request.endpoint, exc_info=error)
    return problem("labelloop failed on this request; the backend's log has the stack", 500)


def _again_where_it_helps(answer: Response) -> Response:
    if answer.status_code == 503:
        answer.headers.set(*RETRY)
    return answer
