"""The routes of `/v1`: each asks `operations` or the backend, and writes a type."""

from __future__ import annotations

from typing import Any

from flask import Response, g, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from api.answers import Answers
from api.classify import Onward
from api.document import CLASSIFY_BODY, KEYED, answers_of
from api.edges import caller, only_of
from api.types import (
    DecidedOut,
    Decision,
    Empty,
    ModelsOut,
    ModelsQuery,
    ProjectPath,
    ProjectsOut,
    Reason,
    RetrainOut,
    StatusOut,
    json_of,
)
from labelloop.web.classify_types import PATH, Classification
from labelloop.web.problems import request_id

PREDICT, READ, OPERATE, APPROVE = (
    Tag(name="predict", description="Images in, classes out. Scope `predict`."),
    Tag(name="read", description="Projects, models, status. Scope `read`."),
    Tag(name="operate", description="Work for the workers. Scope `operate`."),
    Tag(name="approve", description="Decisions about versions. Scope `approve`."),
)


def v1(answers: Answers, onward: Onward) -> APIBlueprint:
    """All routes that need a key."""
    routes = APIBlueprint("v1", __name__, url_prefix="/v1", abp_security=KEYED)
    _add_reading(routes, answers)
    _add_changing(routes, answers)

    @routes.post("/classify", tags=[PREDICT], responses=answers_of(Classification, 404, 409, 413, 415),
                 openapi_extensions={"requestBody": CLASSIFY_BODY})  # fmt: skip
    def classify() -> Response:
        """Classify one or several images.

        The live model answers. Send files (multipart/form-data) or JSON with base64 or addresses of the project's
        images. An image that cannot be read has a `problem` in its place; where none can, the request fails.
        """
        return onward.send(PATH, request, request_id())

    return routes


def _add_reading(routes: APIBlueprint, answers: Answers) -> None:
    @routes.get("/projects", tags=[READ], responses=answers_of(ProjectsOut))
    def projects(query: Empty) -> Response:
        """List the projects that the key is for."""
        return sent(answers.projects(caller()))

    @routes.get("/projects/<project>/status", tags=[READ], responses=answers_of(StatusOut, 404))
    def status(path: ProjectPath, query: Empty) -> Response:
        """Show a project's loop: champion, labels, queue, jobs, processes."""
        return sent(answers.status(path.project))

    @routes.get("/models", tags=[READ], responses=answers_of(ModelsOut, 404))
    def models(query: ModelsQuery) -> Response:
        """List a project's model versions with their evidence, newest first."""
        only_of(query.project)
        return sent(answers.models(query.project, query.limit))


def _add_changing(routes: APIBlueprint, answers: Answers) -> None:
    @routes.post("/projects/<project>/retrain", tags=[OPERATE], responses=answers_of(RetrainOut, 404, 409, ok=202))
    def retrain(path: ProjectPath, query: Empty) -> Response:
        """Ask for a retrain. Asking again while one is open changes nothing."""
        return sent(answers.retrain(path.project, caller()), 202)

    @routes.post("/projects/<project>/promote", tags=[APPROVE], responses=answers_of(DecidedOut, 404, 409, 413, 415))
    def promote(path: ProjectPath, query: Empty, body: Decision) -> Response:
        """Make a version the champion, regardless of the gate."""
        g.version = body.version
        return sent(answers.promote(path.project, body, caller()))

    @routes.post("/projects/<project>/reject", tags=[APPROVE], responses=answers_of(DecidedOut, 404, 409, 413, 415))
    def reject(path: ProjectPath, query: Empty, body: Decision) -> Response:
        """Refuse a version: it is not offered again."""
        g.version = body.version
        return sent(answers.reject(path.project, body, caller()))

    @routes.post("/projects/<project>/rollback", tags=[APPROVE], responses=answers_of(DecidedOut, 404, 409, 413, 415))
    def rollback(path: ProjectPath, query: Empty, body: Reason) -> Response:
        """Go back to the champion before this one. Unreadable versions are skipped and named."""
        return sent(answers.rollback(path.project, body, caller()))


def sent(answer: Any, status: int = 200) -> Response:
    """As JSON."""
    return Response(json_of(answer), status, content_type="application/json")
