"""Swagger UI, from the files of a wheel: nothing comes from elsewhere, and nothing of a page is trusted but these."""

from __future__ import annotations

from pathlib import Path

import flask_openapi3_swagger
from flask import Flask, Response, redirect
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as AnyResponse

from api.document import DOCUMENT

FILES = Path(flask_openapi3_swagger.__file__).parent / "templates" / "swagger"
SHOWN = {"css/swagger-ui.css": "text/css; charset=utf-8", "js/swagger-ui-bundle.js": "text/javascript; charset=utf-8"}
START = (
    f"window.onload = () => SwaggerUIBundle({{url: '{DOCUMENT}', dom_id: '#page', deepLinking: true, "
    "presets: [SwaggerUIBundle.presets.apis], validatorUrl: null});\n"
)
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>labelloop: REST API</title>
<link rel="stylesheet" href="/docs/css/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="/docs/js/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_pages(app: Flask) -> None:
    """`/docs`, and `/`, which leads there."""

    @app.route("/docs/<path:name>", methods=["GET"])
    def page_files(name: str) -> Response:
        if name == "start.js":
            return _file(START.encode(), "text/javascript; charset=utf-8")
        if name not in SHOWN:
            raise NotFound
        return _file((FILES / name).read_bytes(), SHOWN[name])

    @app.route("/", methods=["GET"], endpoint="pages", defaults={"leads": True})
    @app.route("/docs", methods=["GET"], endpoint="pages", defaults={"leads": False})
    def pages(*, leads: bool) -> AnyResponse:
        if leads:
            return redirect("/docs")
        return Response(PAGE, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": POLICY})


def _file(data: bytes, kind: str) -> Response:
    return Response(data, content_type=kind, headers={"Cache-Control": "max-age=3600"})
