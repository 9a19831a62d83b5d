"""Tasks in, Label Studio predictions out: in order, one for each, all of one version."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from labelloop.decode import Pixels
from labelloop.errors import ImageUnreadableError, StorageError
from labelloop.images import Reader
from labelloop.labels import LabelSchema
from labelloop.mirror import MirroredReader, NotCopiedError
from labelloop.projects import ProjectRecord
from labelloop.schema import LabelRules, Names
from labelloop.scores import COLD_START
from ml_backend.contract import RequestError
from ml_backend.live import LiveProject
from ml_backend.loader import LiveModel
from ml_backend.metrics import Metrics
from ml_backend.turns import end_turn

CHUNK = 32  # images per batch; while one is computed the next is read
ANSWER_S = 95.0  # Label Studio waits a hundred seconds
LAST = 1.0  # Label Studio serves the lowest score first: what has no answer does not push ahead

log = structlog.get_logger()
Result = dict[str, Any]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Asked:
    """Everything that one request's images have in common."""

    record: ProjectRecord
    live: LiveProject
    schema: LabelSchema
    model: LiveModel | None  # the snapshot: one response never mixes versions
    gone: Callable[[], bool] = lambda: False  # whether nobody waits for the answer any more

    @property
    def version(self) -> str:
        return self.model.name if self.model else COLD_START


@dataclass(frozen=True, slots=True)
class Looked:
    """One image after reading: pixels, or why there are none."""

    pixels: Pixels | None = None
    why: str = ""  # blind | missing | uncopied | refused | undecodable | storage


class Predictor:
    """Answers tasks from the live model."""

    def __init__(self, reader: Reader, metrics: Metrics) -> None:
        self._reader, self._metrics = reader, metrics

    def predict(self, asked: Asked, tasks: Sequence[Mapping[str, Any]]) -> list[Result]:
        """One result per task, in order. StorageError where not one image could be had for storage's sake."""
        if asked.model is None:
            return [self._empty(asked, "cold-start") for _ in tasks]
        names = LabelRules(asked.record.config.label_map).names(asked.model.head.labels)
        results: list[Result] = []
        for looked in self._chunks(asked, tasks):
            if not results and all(item.why == "storage" for item in looked):  # nor would the others be had
                raise StorageError("object storage cannot be reached; ask again when it is back")
            if asked.gone():
                raise RequestError("nobody waits for this answer any more", 503)
            results += self._answer(asked, asked.model, looked, names)
        return results

    def _chunks(self, asked: Asked, tasks: Sequence[Mapping[str, Any]]) -> Iterator[list[Looked]]:
        """Read ahead by one chunk, never more: a long request must not fill the memory."""
        end = time.monotonic() + ANSWER_S
        waiting: list[list[Future[Looked]]] = []
        try:
            for start in range(0, len(tasks), CHUNK):
                part = tasks[start : start + CHUNK]
                waiting.append([asked.live.readers.submit(self._look, asked, task) for task in part])
                if len(waiting) > 1:
                    yield _results(waiting[0], end)
                    waiting.pop(0)
            for futures in waiting:
                yield _results(futures, end)
        finally:  # whoever gives up leaves no work behind for the next one to wait for
            for future in chain.from_iterable(waiting):
                future.cancel()

    def _look(self, asked: Asked, task: Mapping[str, Any]) -> Looked:
        uri = _uri(task, asked.schema.data_key)
        if uri is None:
            return self._unreadable(task, "missing", f"the task has no image under {asked.schema.data_key!r}")
        try:
            return self._read(asked, uri)
        except NotCopiedError:  # uploaded a moment ago: sync copies it, and then it is known
            return Looked(why="uncopied")
        except ImageUnreadableError as error:
            return self._unreadable(task, "refused", str(error))
        except StorageError as error:
            return self._unreadable(task, "storage", str(error))

    def _read(self, asked: Asked, uri: str) -> Looked:
        blind = asked.live.blinds.recorded(asked.record, uri)
        if blind:
            return Looked(why="blind")
        data, _ = MirroredReader(self._reader, asked.live.mirror).read(uri)
        if blind is None and asked.live.blinds.computed(asked.record, uri, data):
            return Looked(why="blind")
        assert asked.model is not None
        try:
            return Looked(asked.model.engine.decode(data))
        except ImageUnreadableError as error:
            return self._unreadable({"id": uri}, "undecodable", f"{uri}: {error}")

    def _unreadable(self, task: Mapping[str, Any], why: str, reason: str) -> Looked:
        self._metrics.unreadable.labels(why).inc()
        log.warning("image unreadable", action="predict", task=task.get("id"), why=why, reason=reason)
        return Looked(why=why)

    def _answer(self, asked: Asked, model: LiveModel, looked: Sequence[Looked], names: Names) -> list[Result]:
        pixels = [item.pixels for item in looked if item.pixels is not None]
        if not any(label in asked.schema.classes for label in names.labels):  # it knows none of Label Studio's classes
            return [self._empty(asked, item.why or "no-class") for item in looked]
        rows = iter(names.of(_probabilities(model, pixels)))
        return [
            self._empty(asked, item.why) if item.pixels is None else self._sure(asked, next(rows), names.labels)
            for item in looked
        ]

    def _sure(self, asked: Asked, row: Floats, labels: tuple[str, ...]) -> Result:
        """The likeliest class; nothing where Label Studio has lost that one: the second best would only mislead."""
        best = int(row.argmax())
        if labels[best] not in asked.schema.classes:
            return self._empty(asked, "no-class")
        probability = min(max(float(row[best]), 0.0), 1.0)
        self._metrics.images.labels("label").inc()
        result = asked.schema.result(labels[best], probability)
        return {"result": result, "score": probability, "model_version": asked.version}

    def _empty(self, asked: Asked, why: str) -> Result:
        self._metrics.images.labels(why).inc()
        return {"result": [], "score": LAST, "model_version": asked.version}


def _results(futures: Sequence[Future[Looked]], end: float) -> list[Looked]:
    """What was read; StorageError where it takes too long for anybody to be waiting still."""
    end_turn()
    try:
        return [future.result(max(0.0, end - time.monotonic())) for future in futures]
    except TimeoutError as error:
        raise StorageError(f"the images could not be read within {ANSWER_S:.0f} s") from error


def _probabilities(model: LiveModel, pixels: Sequence[Pixels]) -> Floats:
    """(n, classes of the head)."""
    if not pixels:
        return np.empty((0, len(model.head.labels)), dtype=np.float32)
    return model.head.probabilities(model.engine.features(np.stack(pixels)))


def _uri(task: Mapping[str, Any], key: str) -> str | None:
    data = task.get("data")
    uri = data.get(key) if isinstance(data, Mapping) else None
    return uri if isinstance(uri, str) and uri else None
