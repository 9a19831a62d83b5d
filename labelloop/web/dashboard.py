"""The queue for people's eyes: rq-dashboard, which only shows. ``gunicorn "labelloop.web.dashboard:create_app()"``.

`labelloop queue` changes the queue, with a record. Who can write to Redis must not run code here, and who shows a page
to the browser of a person who is signed in must change nothing.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

import structlog
from flask import Flask, Request, Response, request
from redis.exceptions import RedisError
from rq.exceptions import NoSuchJobError
from rq.serializers import DefaultSerializer, JSONSerializer
from rq_dashboard import default_settings
from rq_dashboard.web import blueprint
from werkzeug.exceptions import HTTPException

from labelloop.config.settings import Settings, load_settings
from labelloop.errors import SettingsError
from labelloop.logs import configure_logs
from labelloop.queue.connection import redis_client
from labelloop.web.browsers import asked_from_elsewhere

SHOWS = frozenset({"GET", "HEAD"})
LOOPBACK = frozenset({"127.0.0.1", "localhost"})
HEADERS = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
BUTTONS = "#compact-btn, #requeue-all-btn, #requeue-job-btn, [data-role=requeue-job-btn]"
WITHOUT_BUTTONS = f"<style>{BUTTONS} {{ display: none !important }}</style></head>"

log = structlog.get_logger()


def create_app(settings: Settings | None = None) -> Flask:
    """The app; SettingsError without a password: the queue names files and shows what failed, and why."""
    settings = settings or load_settings()
    if not settings.dashboard_password:
        raise SettingsError("LABELLOOP_DASHBOARD_PASSWORD is not set: the dashboard shows nothing without one")
    configure_logs(json=settings.log_json, service="dashboard", secrets=settings.secrets)
    read_no_pickle()
    app = Flask("rq_dashboard")  # its pages ask for its files
    app.config.from_object(default_settings)
    app.config.update(RQ_DASHBOARD_REDIS_URL=["the queue"], RQ_DASHBOARD_DISABLE_DELETE=True, MAX_CONTENT_LENGTH=0)
    app.redis_conn = redis_client(settings)  # type: ignore[attr-defined] # where rq-dashboard looks for it
    app.register_blueprint(blueprint)
    _only_show(app)
    _add_edges(app, settings)
    return app


def read_no_pickle() -> None:
    """In all of this process: rq-dashboard asks RQ for its default in some places, and unpickling runs code."""
    DefaultSerializer.loads = staticmethod(JSONSerializer.loads)
    DefaultSerializer.dumps = staticmethod(JSONSerializer.dumps)


def _only_show(app: Flask) -> None:
    """Takes away whatever changes the queue, and the connection to a Redis that the address names."""
    app.before_request_funcs.pop(blueprint.name, None)
    for rule in list(app.url_map.iter_rules()):
        if (rule.methods or set()) - {*SHOWS, "OPTIONS"}:
            app.view_functions[rule.endpoint] = _shows_only


def _shows_only(**_: object) -> Response:
    return _plain("the dashboard only shows: `labelloop queue` retries, discards and cancels", 405)


def _add_edges(app: Flask, settings: Settings) -> None:
    @app.before_request
    def before() -> Response | None:
        if not _goes_by(request, settings.dashboard_url):
            return _plain("this dashboard goes by another name: see LABELLOOP_DASHBOARD_URL", 403)
        if asked_from_elsewhere(request.headers, request.host):  # before the browser asks the person for a password
            return _plain("a page of another address may not ask this", 403)
        if not _knows(request, settings):
            answer = _plain("labelloop: wrong or missing user and password", 401)
            answer.headers["WWW-Authenticate"] = 'Basic realm="labelloop dashboard"'
            return answer
        return None if request.method in SHOWS else _shows_only()

    @app.after_request
    def after(response: Response) -> Response:
        response.headers.update(HEADERS)
        if response.mimetype == "text/html" and not response.direct_passthrough:
            response.set_data(response.get_data(as_text=True).replace("</head>", WITHOUT_BUTTONS, 1))
        return response

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        return _as_response(error)


def _goes_by(request: Request, url: str | None) -> bool:
    """A foreign name that leads here is somebody else's page. Without an address of ours, any name is right."""
    if url is None:
        return True
    return urlsplit(f"//{request.host}").hostname in {urlsplit(url).hostname, *LOOPBACK}


def _knows(request: Request, settings: Settings) -> bool:
    credentials = request.authorization
    if credentials is None or credentials.type != "basic":
        return False
    right_user = _same(credentials.username, settings.dashboard_user)
    right_password = _same(credentials.password, settings.dashboard_password)  # both: none is guessed alone
    return right_user and right_password


def _same(sent: str | None, expected: str | None) -> bool:
    return hmac.compare_digest((sent or "").encode(), (expected or "").encode())


def _as_response(error: Exception) -> Response:
    match error:
        case NoSuchJobError():
            return _plain("there is no such job: it has ended, or was removed", 404)
        case RedisError():
            return _plain("Redis cannot be reached; try again soon", 503)
        case HTTPException():
            return _plain(error.description or error.name, error.code or 500)
    log.error("request failed", action="request", endpoint=request.endpoint, exc_info=error)
    return _plain("this cannot be shown: the dashboard's log has the reason", 500)


def _plain(message: str, status: int) -> Response:
    return Response(message + "\n", status, content_type="text/plain; charset=utf-8")
