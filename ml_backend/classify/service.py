"""Images in, classes out: by the live model, within the same bounds as Label Studio's calls and apart from them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from labelloop.decoding.square import Pixels
from labelloop.errors import DecodersBusyError, ImageUnreadableError, StorageError
from labelloop.images.mirror import MirroredReader, source_of
from labelloop.images.reader import Reader, short
from labelloop.model.head import speaks
from labelloop.records.arrays import Floats
from labelloop.records.versions import COLD_START
from labelloop.rules.schema import LabelRules, Names
from labelloop.store.projects import ProjectRecord
from labelloop.web.callers import Callers
from labelloop.web.classify_types import MAX_MAPS, Classification, ClassifiedImage, Guess, Options
from labelloop.web.problems import ProblemAnswer, ProblemError
from ml_backend.classify.heat import Chances, heat_map
from ml_backend.classify.neighbours import Neighbours
from ml_backend.classify.wish import GivenImage, Wish
from ml_backend.entrance.turns import end_turn
from ml_backend.large import Large, LargeCall
from ml_backend.live import LiveProject
from ml_backend.loader import LiveModel
from ml_backend.places import Places

PLACES = 4  # of each project: Label Studio's calls have places of their own, and keep them
WAITING = 12
ANSWER_S = 60.0
SMALL_S = 10.0
UNSURE = "unlabelled-class"


@dataclass(frozen=True, slots=True)
class Seen:
    """One image after decoding: pixels, or why there are none."""

    pixels: Pixels | None = None
    problem: ProblemAnswer | None = None
    costly: bool = False  # too large to be decoded beside others


@dataclass(frozen=True, slots=True)
class ClassifyCall:
    """Everything that the images of one request have in common. ``model``: one, from the first image to the last."""

    record: ProjectRecord
    live: LiveProject
    model: LiveModel
    reader: Reader

    def bytes_of(self, image: GivenImage) -> bytes:
        """ImageUnreadableError, StorageError, DecodersBusyError."""
        return image.bytes() if image.uri is None else self._read(image.uri)

    def _read(self, uri: str) -> bytes:
        """Only the project's own images: a key of one project reads nothing of another's."""
        if not uri.startswith(self.record.image_uri) and source_of(uri) is None:
            raise ImageUnreadableError(f"{short(uri)} is not among the project's images ({self.record.image_uri}…)")
        return MirroredReader(self.reader, self.live.mirror).read(uri)[0]


@dataclass(frozen=True)
class Classifier:
    """One process's. Large images take turns here, too."""

    callers: Callers
    reader: Reader
    neighbours: Neighbours | None = None
    places: Places = field(default_factory=lambda: Places(PLACES, WAITING))
    large: Large = field(default_factory=lambda: Large(images=1, calls=2))

    def classify(self, record: ProjectRecord, live: LiveProject, wish: Wish) -> Classification:
        """ProblemError where there is no model, or not one image can be answered."""
        model = live.model
        if model is None:
            raise ProblemError(409, f"project {record.key} has no model yet ({COLD_START}): label a few images first")
        if wish.options.heat_map and len(wish.images) > MAX_MAPS:
            raise ProblemError(422, f"heat_map: {len(wish.images)} images; heat maps are drawn for {MAX_MAPS} at most")
        call = ClassifyCall(record, live, model, self.reader)
        with self.large.call() as large:
            seen = self._see(call, wish.images, large)
        problems = [one.problem for one in seen if one.problem]
        if len(problems) == len(seen):
            raise ProblemError(problems[0].status, problems[0].detail)
        return Classification(
            project=record.key, version=model.name, backbone=model.engine.id,
            images=answers(call, seen, wish.options, self.neighbours),
        )  # fmt: skip

    def _see(self, call: ClassifyCall, images: Sequence[GivenImage], large: LargeCall) -> list[Seen]:
        """Small ones by the project's readers, side by side; large ones after them, one by one."""
        end, caller = time.monotonic() + ANSWER_S, object()
        futures = [call.live.readers.submit(caller, partial(_look, call, image)) for image in images]
        end_turn()
        try:
            seen = _results(futures, end)
        finally:  # a call that gives up leaves no work behind for the next one to wait for
            for future in futures:
                future.cancel()
        return [_slowly(call, image, large) if one.costly else one for image, one in zip(images, seen, strict=True)]


def _results(futures: Sequence[Future[Seen]], end: float) -> list[Seen]:
    try:
        return [future.result(max(0.0, end - time.monotonic())) for future in futures]
    except TimeoutError as error:
        raise ProblemError(503, f"the images could not be read within {ANSWER_S:.0f} s; try again soon") from error


def _look(call: ClassifyCall, image: GivenImage) -> Seen:
    return _guarded(call, image, None)


def _slowly(call: ClassifyCall, image: GivenImage, large: LargeCall) -> Seen:
    try:
        with large.turn():
            return _guarded(call, image, large.until)
    except DecodersBusyError as error:
        return Seen(problem=ProblemAnswer(503, str(error)))


def _guarded(call: ClassifyCall, image: GivenImage, until: float | None) -> Seen:
    """What is wrong with an image costs this image alone. ``until``: when a large one must be done."""
    try:
        data, engine = call.bytes_of(image), call.model.engine
        if until is None and engine.is_costly(data):
            return Seen(costly=True)
        wait_s = SMALL_S if until is None else max(until - time.monotonic(), 0)
        return Seen(engine.decode(data, wait_s=wait_s))
    except ImageUnreadableError as error:
        return Seen(problem=ProblemAnswer(422, str(error)))
    except DecodersBusyError as error:
        return Seen(problem=ProblemAnswer(503, str(error)))
    except StorageError:
        return Seen(problem=ProblemAnswer(503, "object storage cannot be reached; try again soon"))


@dataclass(frozen=True, slots=True)
class Judge:
    """The model as a function of pixels, with classes under the names that they have now."""

    model: LiveModel
    names: Names
    options: Options

    def rows(self, features: Floats) -> tuple[Floats, Floats]:
        """(n, features) to (n, classes) of those with a label, which sum to 1, and (n,) of one without."""
        return self.names.of(self.model.head.probabilities(features)), self.model.head.unseen(features)

    def answer(self, pixels: Pixels, row: Floats, unseen: Floats) -> ClassifiedImage:
        """The answer's probabilities leave room for a class without a label."""
        labels, options = self.names.labels, self.options
        chances = [_chance(p * (1 - unseen)) for p in row]
        order = sorted(range(len(labels)), key=lambda n: -chances[n])
        sure = bool(len(row)) and bool(speaks(row.max(keepdims=True), unseen).all())
        return ClassifiedImage(
            label=labels[order[0]] if sure else None,
            probability=chances[order[0]] if sure else None,
            unsure=None if sure else UNSURE,
            unlabelled_class=_chance(unseen),
            top=[Guess(label=labels[n], probability=chances[n]) for n in order[: options.top_k]],
            probabilities=dict(zip(labels, chances, strict=True)) if options.probabilities else None,
            heat_map=heat_map(pixels, self._chances_of(order[0])) if options.heat_map and order else None,
        )

    def _chances_of(self, column: int) -> Chances:
        def chances(pixels: Pixels) -> Floats:
            rows, unseen = self.rows(self.model.engine.features(pixels))
            return np.asarray(rows[:, column] * (1 - unseen), dtype=np.float32)

        return chances


def answers(
    call: ClassifyCall, seen: Sequence[Seen], options: Options, neighbours: Neighbours | None = None
) -> list[ClassifiedImage]:
    """One for each image, in order."""
    judge = Judge(call.model, LabelRules.of(call.record.config).names(call.model.head.labels), options)
    readable = np.stack([one.pixels for one in seen if one.pixels is not None])
    features = call.model.engine.features(readable)
    made = [judge.answer(*row) for row in zip(readable, *judge.rows(features), strict=True)]
    if options.neighbours and neighbours:
        end_turn()
        labelled = neighbours.of(call.record, call.live, call.model.engine.id)
        for image, near in zip(made, labelled.nearest(features, options.neighbours), strict=True):
            image.neighbours = near
    rest = iter(made)
    return [_failed(one.problem) if one.problem else next(rest) for one in seen]


def _failed(problem: ProblemAnswer | None) -> ClassifiedImage:
    return ClassifiedImage(
        label=None, probability=None, unsure=None, unlabelled_class=None, top=[],
        problem=problem.problem() if problem else None,
    )  # fmt: skip


def _chance(value: Floats) -> float:
    return min(max(float(value), 0.0), 1.0)
