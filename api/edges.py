"""What holds for every request: who asks and may, request ids, security headers, errors as problems, the audit log."""

from __future__ import annotations

import structlog
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from labelloop.errors import LabelloopError, LeaseLostError, NotFoundError, QueueError, StorageError
from labelloop.records.api_keys import ApiKey, Scope
from labelloop.rules.api_keys import lacks
from labelloop.web.callers import Callers, must
from labelloop.web.problems import REQUEST_ID, ProblemAnswer, ProblemError, http_problem, request_id
from ml_backend.entrance.turns import end_turn

OPEN = frozenset({"health", "ready", "document", "pages", "page_files"})  # they tell nothing of the deployment
SCOPES = {
    "v1.projects": Scope.READ, "v1.status": Scope.READ, "v1.models": Scope.READ, "v1.classify": Scope.PREDICT,
    "v1.retrain": Scope.OPERATE, "v1.promote": Scope.APPROVE, "v1.reject": Scope.APPROVE, "v1.rollback": Scope.APPROVE,
}  # fmt: skip
AUDITED = {Scope.OPERATE, Scope.APPROVE}
STATUSES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], int], ...] = (  # the first that fits
    (NotFoundError, 404),
    ((StorageError, QueueError, LeaseLostError), 503),
    (LabelloopError, 409),  # a conflict, a damaged version, nothing to go back to: the words say which
    (RecursionError, 400),
)
AWAY = "object storage, Redis or a lease cannot be had now; try again soon"
JSON_ONLY = "send application/json"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}

log = structlog.get_logger()


def add_edges(app: Flask, callers: Callers) -> None:
    """Before and after every handler."""

    @app.before_request
    def before() -> None:
        end_turn()  # whatever is asked here waits for others
        endpoint = request.endpoint
        if endpoint is None or endpoint in OPEN:
            return
        scope = SCOPES[endpoint]  # a route that is not listed is nobody's
        g.key = callers.enter(request.headers.get("Authorization"))
        must(lacks(g.key, scope, (request.view_args or {}).get("project", "")))
        if request.method == "POST" and scope in AUDITED and request.content_length and not request.is_json:
            raise ProblemError(415, JSON_ONLY)

    @app.after_request
    def after(response: Response) -> Response:
        response.headers[REQUEST_ID] = request_id()
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        _audit(response)
        return response

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        return problem_of(error).response(request_id())


def caller() -> ApiKey:
    """Whose request is being answered."""
    key: ApiKey = g.key
    return key


def only_of(project: str) -> None:
    """ProblemError where the key is for another project."""
    must(lacks(caller(), SCOPES[request.endpoint or ""], project))


def problem_of(error: Exception) -> ProblemAnswer:
    """The one place where errors become problems; nobody outside ever sees a stack."""
    if isinstance(error, ProblemError):
        return error.answer
    if isinstance(error, HTTPException):
        return http_problem(error)
    status = next((status for kinds, status in STATUSES if isinstance(error, kinds)), 500)
    if status == 503:
        log.warning("a server is away", action="request", endpoint=request.endpoint, reason=str(error))
        return ProblemAnswer(503, AWAY, retry_s=2)
    if status == 500:
        log.error(
            "request failed", action="request", endpoint=request.endpoint, request_id=request_id(), exc_info=error
        )
        return ProblemAnswer(500, "labelloop failed on this request; the API's log has the stack")
    nested = isinstance(error, RecursionError)
    return ProblemAnswer(status, "the body is nested too deeply" if nested else str(error))


def _audit(response: Response) -> None:
    """A line for each request that changes something, also where it was refused; strangers leave none."""
    key: ApiKey | None = g.get("key")
    if key is None or SCOPES.get(request.endpoint or "") not in AUDITED:
        return
    log.info(
        "a change was asked for", action="audit", key=key.id, name=key.name, what=(request.endpoint or "")[3:],
        project=(request.view_args or {}).get("project"), version=g.get("version"), status=response.status_code,
        request_id=request_id(), address=request.remote_addr,
    )  # fmt: skip
