"""Tasks in, Label Studio predictions out: in order, one for each, all of one version."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from labelloop.decoding.square import Pixels
from labelloop.errors import DecodersBusyError, ImageUnreadableError, StorageError
from labelloop.images.mirror import MirroredReader, NotCopiedError, source_of
from labelloop.images.reader import Reader
from labelloop.labels.results import LabelSchema
from labelloop.model.head import speaks
from labelloop.names import encodable, shown
from labelloop.records.versions import COLD_START
from labelloop.rules.schema import LabelRules, Names
from labelloop.store.features import RowPlace
from labelloop.store.projects import ProjectRecord
from ml_backend.contract import RequestError
from ml_backend.kept import Kept
from ml_backend.large import Large, LargeCall
from ml_backend.live import LiveProject
from ml_backend.loader import LiveModel
from ml_backend.metrics import Metrics
from ml_backend.turns import end_turn

CHUNK = 8  # images that are computed at once
AHEAD = 4  # chunks that are read meanwhile
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
    """One image after reading: its pixels, its features where they are kept, or why there is neither."""

    pixels: Pixels | None = None
    row: Floats | None = None
    why: str = ""  # blind | missing | uncopied | refused | undecodable | storage | busy | late
    costly: str = ""  # the address of an image that is too large to be decoded beside others

    @property
    def known(self) -> bool:
        """Whether there is something to answer from."""
        return self.pixels is not None or self.row is not None


class Predictor:
    """Answers tasks from the live model."""

    def __init__(self, reader: Reader, metrics: Metrics) -> None:
        self._reader, self._metrics = reader, metrics
        self._large = Large()

    def predict(self, call: PredictCall, tasks: Sequence[Mapping[str, Any]]) -> list[Result]:
        """One result per task, in order; what time was too short for is empty.

        StorageError where not one image could be had for storage's sake.
        """
        if call.model is None:
            return [self._empty(call, "cold-start") for _ in tasks]
        names = LabelRules.of(call.record.config).names(call.model.head.labels)
        found = self._answer_kept(call, call.model, tasks, names)
        rest = [number for number in range(len(tasks)) if number not in found]
        with self._large.call() as large:
            for numbers, chunk in self._chunks(call, tasks, rest):
                if not found and all(item.why in {"storage", "late"} for item in chunk):  # nor would the others be had
                    raise StorageError("object storage cannot be reached; ask again when it is back")
                if call.is_abandoned():
                    raise RequestError("the caller has stopped waiting", 503)
                images = [self._slowly(call, item.costly, large) if item.costly else item for item in chunk]
                features = _features(call.model, images, bulk=len(rest) > CHUNK)
                found.update(zip(numbers, self._answer(call, call.model, images, features, names), strict=True))
        return [found[number] for number in range(len(tasks))]

    def _answer_kept(
        self, call: PredictCall, model: LiveModel, tasks: Sequence[Mapping[str, Any]], names: Names
    ) -> dict[int, Result]:
        """By number of the task: those whose features are kept, of the bytes that the bucket holds."""
        kept, engine = call.live.kept, model.engine.id
        if kept is None:
            return {}
        uris = [call.schema.uri(task.get("data")) for task in tasks]
        places = kept.places(call.record, engine, uris)
        same = [n for n, place in enumerate(places) if place is not None and kept.is_same(uris[n], place)]
        blind = {n: call.live.blinds.recorded(call.record, uris[n]) for n in same}
        open_ = [n for n in same if blind[n] is False]
        rows = kept.rows(engine, [uris[n] for n in open_]) if open_ else None
        found = {n: self._empty(call, "blind") for n in same if blind[n]}
        if rows is not None:
            found.update(zip(open_, self._say(call, model, rows, names), strict=True))
        return found

    def _chunks(
        self, call: PredictCall, tasks: Sequence[Mapping[str, Any]], numbers: Sequence[int]
    ) -> Iterator[tuple[Sequence[int], list[ReadImage]]]:
        """Read ahead by a few chunks, never more: a long request must not fill the memory."""
        end = time.monotonic() + ANSWER_S
        waiting: deque[tuple[Sequence[int], list[Future[ReadImage]]]] = deque()
        caller = object()
        try:
            for start in range(0, len(numbers), CHUNK):
                part = numbers[start : start + CHUNK]
                looks = [call.live.readers.submit(caller, partial(self._look, call, tasks[n])) for n in part]
                waiting.append((part, looks))
                if len(waiting) > AHEAD:
                    yield waiting[0][0], _results(waiting[0][1], end)
                    waiting.popleft()
            for part, looks in waiting:
                yield part, _results(looks, end)
        finally:  # a call that gives up leaves no work behind for the next one to wait for
            for future in chain.from_iterable(looks for _, looks in waiting):
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
        if blind is False and (row := _kept_row(call, uri)) is not None:
            return ReadImage(row=row)
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

    def _answer(
        self, call: PredictCall, model: LiveModel, images: Sequence[ReadImage], features: Floats, names: Names
    ) -> list[Result]:
        said = iter(self._say(call, model, features, names))
        return [next(said) if item.known else self._empty(call, item.why) for item in images]

    def _say(self, call: PredictCall, model: LiveModel, features: Floats, names: Names) -> list[Result]:
        """(n, dimension) to n results: the likeliest class, or nothing where naming it would only mislead.

        That is where Label Studio has lost this class, or where the image is likelier of a class that nobody has
        labelled yet.
        """
        known = [label in call.schema.classes for label in names.labels]
        if not any(known):
            return [self._empty(call, "no-class") for _ in features]
        rows, unseen = names.of(model.head.probabilities(features)), model.head.unseen(features)
        best, most = rows.argmax(axis=1), rows.max(axis=1)
        sure = speaks(most, unseen)
        scores = np.clip(most * (1 - unseen), 0, 1)
        self._metrics.images.labels("label").inc(int((sure & np.array(known)[best]).sum()))
        return [
            self._empty(call, "no-class") if not known[label] else
            self._empty(call, "unseen-class") if not speaks_up else
            {"result": call.schema.result(names.labels[label], score), "score": score, "model_version": call.version}
            for label, speaks_up, score in zip(best.tolist(), sure.tolist(), scores.tolist(), strict=True)
        ]  # fmt: skip

    def _empty(self, call: PredictCall, why: str) -> Result:
        self._metrics.images.labels(why).inc()
        return {"result": [], "score": LAST, "model_version": call.version}


def _kept_row(call: PredictCall, uri: str) -> Floats | None:
    """(dimension,) of one image, where its kept features are of the bytes that S3 holds at this moment."""
    kept = call.live.kept
    assert call.model is not None
    engine = call.model.engine.id
    place = kept.places(call.record, engine, [uri])[0] if kept else None
    if not kept or place is None or not (kept.is_same(uri, place) or _is_same_now(kept, uri, place)):
        return None
    rows = kept.rows(engine, [uri])
    return None if rows is None else rows[0]


def _is_same_now(kept: Kept, uri: str, place: RowPlace) -> bool:
    """By a HEAD, where nothing else can tell: a listing may be older than the bytes."""
    return source_of(uri) is None and kept.is_same_now(uri, place)


def _results(futures: Sequence[Future[ReadImage]], end: float) -> list[ReadImage]:
    """What was read by ``end``: after that Label Studio would throw the whole answer away."""
    end_turn()
    wait(futures, max(0.0, end - time.monotonic()))
    return [future.result() if future.done() else ReadImage(why="late") for future in futures]


def _features(model: LiveModel, images: Sequence[ReadImage], *, bulk: bool) -> Floats:
    """(n, dimension) of those that are known, in order."""
    pixels = [item.pixels for item in images if item.pixels is not None]
    computed = iter(model.engine.features(np.stack(pixels), bulk=bulk) if pixels else ())
    rows = [next(computed) if item.row is None else item.row for item in images if item.known]
    return np.stack(rows) if rows else np.empty((0, model.head.dimension), dtype=np.float32)


def _named(task: Mapping[str, Any]) -> int | str | None:
    """A task for the log: its id may be anything."""
    name = task.get("id")
    return name if isinstance(name, int) else name[:200] if isinstance(name, str) else None
