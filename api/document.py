"""The OpenAPI document: generated from the routes' types; what they have in common stands here."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import Response, make_response
from flask_openapi3.models import OPENAPI3_REF_PREFIX
from flask_openapi3.models.info import Info
from flask_openapi3.models.schema import Schema
from flask_openapi3.openapi import OpenAPI
from flask_openapi3.utils import get_model_schema
from pydantic import BaseModel, ValidationError

from labelloop import __version__
from labelloop.web.classify_types import ClassifyBody, ClassifyForm
from labelloop.web.problems import PROBLEM, Problem, ProblemAnswer, request_id, title_of

DOCUMENT = "/openapi.json"
BEARER = "key"
KEYED: list[dict[str, list[Any]]] = [{BEARER: []}]
SCHEMES: dict[str, Any] = {
    BEARER: {"type": "http", "scheme": "bearer", "description": "A key of `labelloop keys add`: ll_…"}
}
INFO = Info(
    title="labelloop", version=__version__,
    description="Classify images with the live model, and steer the loop. Every error is a problem (RFC 9457); 429 and "
    "503 say in Retry-After when to ask again.",
)  # fmt: skip
EVERYWHERE = (400, 401, 403, 422, 429, 503)
CLASSIFY_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {"$ref": f"{OPENAPI3_REF_PREFIX}/ClassifyForm"},
            "encoding": {"image": {"style": "form", "explode": True}},
        },
        "application/json": {"schema": {"$ref": f"{OPENAPI3_REF_PREFIX}/ClassifyBody"}},
    },
}


def documented(name: str) -> OpenAPI:
    """An empty app whose routes are written down."""
    app = OpenAPI(
        name, info=INFO, security_schemes=SCHEMES, doc_ui=False, validation_error_status=422,
        validation_error_model=Problem, validation_error_callback=invalid, static_folder=None,
    )  # fmt: skip
    for model in (ClassifyBody, ClassifyForm):
        _add_schema(app, model)
    return app


def add_document(app: OpenAPI) -> None:
    """Show it, without a key: it tells nothing of the deployment."""

    @app.get(DOCUMENT, doc_ui=False)
    def document() -> Response:
        return make_response(app.api_doc)


def answers_of(model: type[BaseModel], *problems: int, ok: int = 200) -> dict[str | int | HTTPStatus, Any]:
    """Status -> what the body is."""
    return {ok: model, **{status: _problem(status) for status in sorted({*EVERYWHERE, *problems})}}


def invalid(error: ValidationError) -> Response:
    """What a request has wrong; never its values."""
    rows = [f"{'.'.join(str(part)[:40] for part in e['loc']) or 'body'}: {e['msg']}"
            for e in error.errors(include_input=False, include_url=False)[:3]]  # fmt: skip
    return ProblemAnswer(422, "; ".join(rows)).response(request_id())


def _problem(status: int) -> dict[str, Any]:
    return {
        "description": title_of(status),
        "content": {PROBLEM: {"schema": {"$ref": f"{OPENAPI3_REF_PREFIX}/Problem"}}},
    }


def _add_schema(app: OpenAPI, model: type[BaseModel]) -> None:
    schema = get_model_schema(model)
    app.components_schemas[model.__name__] = Schema(**schema)
    for name, inner in schema.get("$defs", {}).items():
        app.components_schemas[name] = Schema(**inner)
