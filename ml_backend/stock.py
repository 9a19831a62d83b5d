"""The same predictions behind the stock server of label-studio-ml 2.x, for those who run that one already.

It makes a model for each request and gives it a bare project number. Ours therefore keeps nothing: it asks the
process's backend, which follows the deployment log. Run by ``gunicorn "ml_backend.stock:create_app()"``;
docs/stock-server.md says how to install it.
"""

from __future__ import annotations

import atexit
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Flask
from label_studio_ml.api import init_app
from label_studio_ml.model import LabelStudioMLBase

from labelloop.config.settings import load_settings
from labelloop.logs import configure_logs
from labelloop.store.projects import ProjectRecord
from ml_backend.backend import Backend, make_backend
from ml_backend.contract import RequestError
from ml_backend.predict import Result


@functools.cache
def serving() -> Backend:
    """The process's backend, from the environment, its threads running."""
    backend = make_backend(load_settings())
    backend.start()
    atexit.register(backend.stop)
    return backend


class LabelloopModel(LabelStudioMLBase):  # type: ignore[misc]
    """A project of labelloop, as the stock server asks for it."""

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        """Without the base's own: it writes into a database that knows projects by their bare number."""
        self.project_id, self._given_config = project_id or "", label_config or ""

    @property
    def model_version(self) -> str:
        """The version that answers now."""
        return serving().setup(self._project().reference, self._given_config)

    @property
    def label_config(self) -> str:
        """That of the request, else the project's."""
        return self._given_config or self._project().label_config

    def get(self, key: str) -> str | None:
        """What the stock server asks `/setup` for; nothing else is kept."""
        return self.model_version if key == "model_version" else None

    def set(self, key: str, value: str) -> None:
        """Nothing is kept in this process."""

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None, **_: Any
    ) -> list[Result]:  # fmt: skip
        """One result per task, in order, each with its version."""
        return serving().predict(self._project().reference, self._given_config, tasks)

    def fit(self, event: str, data: Mapping[str, Any], **_: Any) -> dict[str, bool]:
        """A hint to the watcher; trains nothing."""
        return {"queued": serving().nudge(self._project().id, event)}

    def _project(self) -> ProjectRecord:
        """RequestError where the number names none, or two: one of a Label Studio that was set up anew."""
        known = [r for r in serving().directory.all() if str(r.id) == self.project_id]
        if len(known) == 1:
            return known[0]
        if known:
            raise RequestError(
                f"{len(known)} projects have the number {self.project_id}, and the stock server does not say which is "
                f"meant: `labelloop forget` the old one ({', '.join(r.key for r in known)})", 409
            )  # fmt: skip
        raise RequestError(
            f"labelloop does not know project {self.project_id[:64]!r}: run `labelloop init` for it", 404
        )


def create_app() -> Flask:
    """The stock server with our model, behind the same user and password as our own."""
    settings = load_settings()
    configure_logs(json=settings.log_json, service="backend", secrets=settings.secrets)
    serving()
    app: Flask = init_app(LabelloopModel, settings.backend_user, settings.backend_password)
    return app
