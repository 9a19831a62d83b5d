"""Tasks in, Label Studio predictions out: in order, one for each, all of one version."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from labelloop.decoding.square import Pixels
from labelloop.errors import DecodersBusyError, ImageUnreadableError, StorageError
from labelloop.images.mirror import MirroredReader, NotCopiedError
from labelloop.images.reader import Reader
from labelloop.labels.results import LabelSchema
from labelloop.model.head import speaks
from labelloop.names import encodable, shown
from labelloop.records.versions import COLD_START
from labelloop.rules.schema import LabelRules, Names
from labelloop.store.projects import ProjectRecord
from ml_backend.contract import RequestError
from ml_backend.large import Large, LargeCall
from ml_backend.live import LiveProject
from ml_backend.loader import LiveModel
from ml_backend.metrics import Metrics
from ml_backend.turns import end_turn

CHUNK = 32  # images per batch; while one is computed the next is read
ANSWER_S = 95.0  # Label Studio waits a hundred seconds
SMALL_S = 10.0
LAST = 1.0  # Label Studio serves the lowest score first: what has no answer does not push ahead

log = structlog.get_logger()
Result = dict[str, Any]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PredictCall:
    """Everything that one request's images have in common."""

    record: ProjectRecord
    live: LiveProject
    schema: LabelSchema
    model: LiveModel | None  # the snapshot: one response never mixes versions
    is_abandoned: Callable[[], bool] = lambda: False  # True where nobody waits for the answer any more

    @property
    def version(self) -> str:
        return self.model.name if self.model else COLD_START


@dataclass(frozen=True, slots=True)
class ReadImage:
    """One image after reading: pixels, or why there are none."""

    pixels: Pixels | None = None
    why: str = ""  # blind | missing | uncopied | refused | undecodable | storage | busy
    costly: str = ""  # the address of an image that is too large to be decoded beside others


class Predictor:
    """Answers tasks from the live model."""

    def __init__(self, reader: Reader, metrics: Metrics) -> None:
        self._reader, self._metrics = reader, metrics
        self._large = Large()

    def predict(self, call: PredictCall, tasks: Sequence[Mapping[str, Any]]) -> list[Result]:
        """One result per task, in order. StorageError where not one image could be had for storage's sake."""
        if call.model is None:
            return [self._empty(call, "cold-start") for _ in tasks]
        names = LabelRules.of(call.record.config).names(call.model.head.labels)
        results: list[Result] = []
        with self._large.call() as large:
            for chunk in self._chunks(call, tasks):
                if not results and all(item.why == "storage" for item in chunk):  # nor would the others be had
                    raise StorageError("object storage cannot be reached; ask again when it is back")
                if call.is_abandoned():
                    raise RequestError("the caller has stopped waiting", 503)
                images = [self._slowly(call, item.costly, large) if item.costly else item for item in chunk]
                results += self._answer(call, call.model, images, names)
        return results

    def _chunks(self, call: PredictCall, tasks: Sequence[Mapping[str, Any]]) -> Iterator[list[ReadImage]]:
        """Read ahead by one chunk, never more: a long request must not fill the memory."""
        end = time.monotonic() + ANSWER_S
        waiting: list[list[Future[ReadImage]]] = []
        caller = object()
        try:
            for start in range(0, len(tasks), CHUNK):
                part = tasks[start : start + CHUNK]
                waiting.append([call.live.readers.submit(caller, partial(self._look, call, task)) for task in part])
                if len(waiting) > 1:
                    yield _results(waiting[0], end)
                    waiting.pop(0)
            for futures in waiting:
                yield _results(futures, end)
        finally:  # a call that gives up leaves no work behind for the next one to wait for
            for future in chain.from_iterable(waiting):
                future.cancel()

    def _look(self, call: PredictCall, task: Mapping[str, Any]) -> ReadImage:
        uri = call.schema.uri(task.get("data"))
        if not uri:
            return self._unreadable(_named(task), "missing", f"the task has no image under {call.schema.data_key!r}")
        if uri != encodable(uri):
            return self._unreadable(_named(task), "refused", f"{shown(uri)} is not UTF-8: give the image another name")
        return self._guarded(_named(task), lambda: self._read(call, uri))

    def _slowly(self, call: PredictCall, uri: str, large: LargeCall) -> ReadImage:
        """A large image, by its call's own thread: it waits for other large ones, and no small one waits for it.

        It is read again, for nobody could hold the bytes of all that wait.
        """

        def work() -> ReadImage:
            with large.turn():
                return self._decoded(call, uri, self._bytes(call, uri), until=large.until)

        return self._guarded(uri, work)

    def _guarded(self, where: Any, work: Callable[[], ReadImage]) -> ReadImage:
        """What is wrong with an image costs this image alone."""
        try:
            return work()
        except NotCopiedError:  # uploaded a moment ago: sync copies it, and then it is known
            return ReadImage(why="uncopied")
        except ImageUnreadableError as error:
            return self._unreadable(where, "refused", str(error))
        except DecodersBusyError as error:
            return self._unreadable(where, "busy", str(error))
        except StorageError as error:
            return self._unreadable(where, "storage", str(error))

    def _read(self, call: PredictCall, uri: str) -> ReadImage:
        blind = call.live.blinds.recorded(call.record, uri)
        if blind:
            return ReadImage(why="blind")
        data = self._bytes(call, uri)
        if blind is None and call.live.blinds.computed(call.record, uri, data):
            return ReadImage(why="blind")
        return self._decoded(call, uri, data)

    def _bytes(self, call: PredictCall, uri: str) -> bytes:
        return MirroredReader(self._reader, call.live.mirror).read(uri)[0]

    def _decoded(self, call: PredictCall, uri: str, data: bytes, *, until: float | None = None) -> ReadImage:
        """``until``: when a large image must be done; without it, it is put aside."""
        assert call.model is not None
        engine = call.model.engine
        try:
            if until is None and engine.is_costly(data):
                return ReadImage(costly=uri)
            wait_s = SMALL_S if until is None else max(until - time.monotonic(), 0)
            return ReadImage(engine.decode(data, wait_s=wait_s))
        except ImageUnreadableError as error:
            return self._unreadable(uri, "undecodable", f"{uri}: {error}")

    def _unreadable(self, where: Any, why: str, reason: str) -> ReadImage:
        self._metrics.unreadable.labels(why).inc()
        log.warning("image unreadable", action="predict", task=where, why=why, reason=reason)
        return ReadImage(why=why)

    def _answer(self, call: PredictCall, model: LiveModel, images: Sequence[ReadImage], names: Names) -> list[Result]:
        pixels = [item.pixels for item in images if item.pixels is not None]
        if not any(label in call.schema.classes for label in names.labels):  # it knows none of Label Studio's classes
            return [self._empty(call, item.why or "no-class") for item in images]
        features = _features(model, pixels)
        rows = iter(zip(names.of(model.head.probabilities(features)), model.head.unseen(features), strict=True))
        return [
            self._empty(call, item.why) if item.pixels is None else self._sure(call, *next(rows), names.labels)
            for item in images
        ]

    def _sure(self, call: PredictCall, row: Floats, unseen: Floats, labels: tuple[str, ...]) -> Result:
        """The likeliest class; nothing where Label Studio has lost that one: the second best would only mislead.

        Nor where the image is likelier of a class that nobody has labelled yet.
        """
        best = int(row.argmax())
        if labels[best] not in call.schema.classes:
            return self._empty(call, "no-class")
        if not speaks(row.max(keepdims=True), unseen):
            return self._empty(call, "unseen-class")
        probability = min(max(float(row[best] * (1 - unseen)), 0.0), 1.0)
        self._metrics.images.labels("label").inc()
        result = call.schema.result(labels[best], probability)
        return {"result": result, "score": probability, "model_version": call.version}

    def _empty(self, call: PredictCall, why: str) -> Result:
        self._metrics.images.labels(why).inc()
        return {"result": [], "score": LAST, "model_version": call.version}


def _results(futures: Sequence[Future[ReadImage]], end: float) -> list[ReadImage]:
    """What was read; StorageError where it takes too long for anybody to be waiting still."""
    end_turn()
    try:
        return [future.result(max(0.0, end - time.monotonic())) for future in futures]
    except TimeoutError as error:
        raise StorageError(f"the images could not be read within {ANSWER_S:.0f} s") from error


def _features(model: LiveModel, pixels: Sequence[Pixels]) -> Floats:
    """(n, features)."""
    return model.engine.features(np.stack(pixels)) if pixels else np.empty((0, model.head.dimension), dtype=np.float32)


def _named(task: Mapping[str, Any]) -> int | str | None:
    """A task for the log: its id may be anything."""
    name = task.get("id")
    return name if isinstance(name, int) else name[:200] if isinstance(name, str) else None
