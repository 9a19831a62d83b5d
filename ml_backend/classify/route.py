"""`POST /v1/classify` over HTTP: who asks, of which project, and every error as a problem."""

from __future__ import annotations

import structlog
from flask import Blueprint, Flask, Response, request
from werkzeug.exceptions import HTTPException

from labelloop.errors import CorruptObjectError, FormatError, SettingsError, StorageError
from labelloop.records.api_keys import ApiKey, Scope
from labelloop.rules.api_keys import lacks
from labelloop.store.projects import ProjectRecord
from labelloop.web.callers import must
from labelloop.web.classify_types import MAX_BODY, PATH
from labelloop.web.problems import REQUEST_ID, ProblemAnswer, ProblemError, http_problem, request_id
from ml_backend.backend import Backend
from ml_backend.classify.wish import wish_of
from ml_backend.contract import RequestError
from ml_backend.entrance.turns import end_turn

log = structlog.get_logger()


def add_classify(app: Flask, backend: Backend) -> None:
    """The route, where the backend has what it takes."""
    if backend.classifier is None:
        return
    classifier = backend.classifier
    routes = Blueprint("v1", __name__)

    @routes.post(PATH)
    def classify() -> Response:
        key = classifier.callers.enter(request.headers.get("Authorization"))
        must(lacks(key, Scope.PREDICT))
        request.max_content_length = MAX_BODY
        wish = wish_of(request)
        record = _project(backend, key, wish.options.project)
        with classifier.places.place(record.key):
            live = backend.loaded(record)
            answer = classifier.classify(record, live, wish)
        body = answer.model_dump_json(exclude_none=False)
        return Response(body, content_type="application/json", headers={REQUEST_ID: request_id()})

    app.register_blueprint(routes)


def is_ours(path: str) -> bool:
    """Whether a path is of the REST API, with keys and problems, and not of Label Studio's contract."""
    return path.startswith("/v1/")


def as_problem(error: Exception) -> Response:
    """The one place where errors become problems; nobody outside ever sees a stack."""
    return _problem_of(error).response(request_id())


def _problem_of(error: Exception) -> ProblemAnswer:
    match error:
        case ProblemError():
            return error.answer
        case RequestError():
            return ProblemAnswer(error.status, str(error))
        case CorruptObjectError() | FormatError() | SettingsError():
            log.warning("an object is damaged", action="request", endpoint=request.endpoint, reason=str(error))
            return ProblemAnswer(503, str(error))
        case StorageError():
            log.warning("object storage is away", action="request", endpoint=request.endpoint, reason=str(error))
            return ProblemAnswer(503, "object storage cannot be reached; try again soon")
        case HTTPException():
            return http_problem(error)
    log.error("request failed", action="request", endpoint=request.endpoint, request_id=request_id(), exc_info=error)
    return ProblemAnswer(500, "labelloop failed on this request; the backend's log has the stack")


def _project(backend: Backend, key: ApiKey, name: str) -> ProjectRecord:
    """The project that is meant; ProblemError where that is unclear, or not the key's."""
    name = name or key.project or _only(backend)
    must(lacks(key, Scope.PREDICT, name))
    server, _, reference = name.partition("-")
    record = backend.directory.find(reference.replace("-", ".", 1))
    if record is None or record.key != name or not server:
        raise ProblemError(404, f"there is no project {name[:100]!r}; GET /v1/projects lists them")
    return record


def _only(backend: Backend) -> str:
    end_turn()
    keys = [live.key for live in backend.live.all()]
    if len(keys) != 1:
        raise ProblemError(422, "project: say which one; GET /v1/projects lists them")
    return keys[0]
