"""What the backend can do, apart from HTTP; its parts are built here and nowhere else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from labelloop.config.settings import Settings, shared_counters
from labelloop.images.reader import image_reader, listed_etags
from labelloop.labels.results import LabelSchema, parse_label_config
from labelloop.objects.s3_client import IMPATIENT, s3_client
from labelloop.objects.storage import S3Store
from labelloop.queue.connection import redis_client
from labelloop.records.versions import COLD_START
from labelloop.store.api_keys import ApiKeyStore
from labelloop.store.projects import ProjectRecord, ProjectStore
from labelloop.web.callers import Callers
from labelloop.web.known_keys import KnownKeys
from ml_backend.classify.neighbours import Neighbours
from ml_backend.classify.service import Classifier
from ml_backend.contract import RequestError
from ml_backend.hints import Hints
from ml_backend.kept import Sources
from ml_backend.live import LiveModels, LiveProject
from ml_backend.metrics import Metrics
from ml_backend.places import Places
from ml_backend.predict import PredictCall, Predictor, Result
from ml_backend.projects import Directory

SETUP_WAIT_S = 1.5  # Label Studio gives /setup three seconds
PREDICT_WAIT_S = 60.0  # and /predict a hundred
SETUPS_AT_ONCE = 4  # of each project that may wait for its first load; more are answered with what is known


@dataclass(frozen=True)
class Backend:
    """One deployment's projects and their live models."""

    directory: Directory
    live: LiveModels
    predictor: Predictor
    metrics: Metrics
    hints: Hints | None = None
    classifier: Classifier | None = None  # of the REST API's images
    places: Places = field(default_factory=Places)
    setups: Places = field(default_factory=lambda: Places(SETUPS_AT_ONCE, waiting=0))
    leaving: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begin to follow the deployment logs."""
        self.live.start()
        if self.classifier:
            self.classifier.callers.keys.start()
        if self.hints:
            self.hints.start()

    def stop(self) -> None:
        """End all threads."""
        if self.hints:
            self.hints.stop()
        if self.classifier:
            self.classifier.callers.keys.stop()
        self.live.stop()
        self.directory.stop()

    def not_ready(self) -> str:
        """Why no new request should be sent here, or nothing. Those that come all the same are answered."""
        if self.leaving.is_set():
            return "this backend is about to stop"
        return "" if self.live.warm() else "the models are still being loaded"

    def setup(self, reference: str, label_config: str) -> str:
        """The version that answers, or `cold-start`; LabelConfigError, RequestError."""
        record = self._project(reference)
        _schema(record, label_config)
        live = self.live.get(record)
        with suppress(RequestError), self.setups.place(record.key):
            live.settled(SETUP_WAIT_S)
        model = live.model
        return model.name if model else live.deployed or COLD_START

    def predict(
        self, reference: str, label_config: str, tasks: Sequence[Mapping[str, Any]],
        is_abandoned: Callable[[], bool] = lambda: False,
    ) -> list[Result]:  # fmt: skip
        """One result per task, in order. ``is_abandoned``: whether nobody waits for them any more."""
        with self.places.place(reference):  # before anything that could hang
            record = self._project(reference)
            schema = _schema(record, label_config)
            live = self.loaded(record)
            return self.predictor.predict(PredictCall(record, live, schema, live.model, is_abandoned), tasks)

    def versions(self, reference: str) -> dict[str, Any]:
        """Names of the versions of one project, or of all that are loaded, and what is live."""
        loaded = [self.live.get(self._project(reference))] if reference else self.live.all()
        names = dict.fromkeys(name for live in loaded for name in live.versions())
        return {"versions": list(names), "live": {live.key: live.facts() for live in loaded}}

    def nudge(self, project: int | str | None, action: str) -> bool:
        """Pass a hint to the watcher; trains nothing."""
        return self.hints.nudge(project, action) if self.hints else False

    def _project(self, reference: str) -> ProjectRecord:
        record = self.directory.find(reference)
        if record is None:
            raise RequestError(f"labelloop does not know project {reference[:64]!r}: run `labelloop init` for it", 404)
        return record

    def loaded(self, record: ProjectRecord) -> LiveProject:
        """The project after its first load; RequestError where that takes too long."""
        live = self.live.get(record)
        if not live.settled(PREDICT_WAIT_S):
            raise RequestError("the project's model is still being loaded; try again soon", 503)
        return live


def make_backend(settings: Settings) -> Backend:
    """From settings; opens no connection yet."""
    s3 = s3_client(settings, IMPATIENT)
    store = S3Store(s3, settings.state_bucket)
    directory = Directory(ProjectStore(store, settings.studio_server))
    metrics = Metrics(shared_counters())
    reader = image_reader(settings, s3)
    sources = Sources(reader, partial(listed_etags, s3), settings.cache_dir, settings.cache_max_bytes)
    live = LiveModels(store, directory.all, metrics, sources=sources)
    neighbours = Neighbours(store, settings.cache_dir, settings.cache_max_bytes)
    classifier = Classifier(Callers(KnownKeys(ApiKeyStore(store))), reader, neighbours)
    hints = Hints(redis_client(settings), live.nudge, live.facts)
    return Backend(directory, live, Predictor(reader, metrics), metrics, hints, classifier)


def _schema(record: ProjectRecord, label_config: str) -> LabelSchema:
    """Of the request: the label config may have been changed since the project was wired."""
    return parse_label_config(label_config) if label_config.strip() else record.schema
