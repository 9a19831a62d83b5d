"""Whether people really get the tasks in the model's order, judged by their last answers.

Two members or more in a project make Label Studio's order random, and nothing in its API shows members: so we look at
what came of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labelloop.records.tasks import Annotation
from labelloop.store.projects import ProjectRecord
from labelloop.store.scores import Scores, ScoreStore
from operations.doctor.finding import Finding, fine, warn
from operations.doctor.scene import Scene

ENOUGH = 20  # answers; fewer show nothing
LAST = 60
VERSIONS = 6
SLACK = 15  # places: tasks kept by others, skipped ones, a recomputed order


@dataclass(frozen=True, slots=True)
class PlacedAnswer:
    """One answered task: the how many-th of its version it was, and the place the model had given it."""

    turn: int
    place: int


def answers(scene: Scene, record: ProjectRecord) -> list[PlacedAnswer]:
    """The last answers, by version, oldest first."""
    snapshot = scene.snapshot(record)
    pairs = [(a, t.uri) for t in snapshot.tasks.values() for a in t.annotations if _counts(a)] if snapshot else []
    by_version: dict[str, list[tuple[Annotation, str]]] = {}
    for annotation, uri in sorted(pairs, key=lambda pair: pair[0].created_at):
        if annotation.seen:
            by_version.setdefault(annotation.seen.version, []).append((annotation, uri))
    store = ScoreStore(scene.deployment.within(record))
    placed: list[PlacedAnswer] = []
    for version in list(by_version)[-VERSIONS:]:
        scores = store.newest(version)
        placed += _placed(scores, [uri for _, uri in by_version[version]]) if scores else []
    return placed[-LAST:]


def followed(placed: Sequence[PlacedAnswer]) -> Finding:
    """In order, the n-th answer under a version comes from about its n-th place."""
    what = "order followed"
    if len(placed) < ENOUGH:
        return fine(what, f"too few answers to judge ({len(placed)} of {ENOUGH})")
    astray = sum(a.place > 2 * a.turn + SLACK for a in placed)
    if astray <= len(placed) / 2:
        return fine(what, f"{len(placed) - astray} of the last {len(placed)} answers came in the model's order")
    return warn(what, f"{astray} of the last {len(placed)} answers did not come in the model's order", "let people "
                "press 'Label All Tasks' instead of opening tasks in the Data Manager; if they do, the project has two "
                "members or more in Label Studio's database (projects_projectmember): remove those rows")  # fmt: skip


def _counts(annotation: Annotation) -> bool:
    return annotation.seen is not None and not annotation.seed


def _placed(scores: Scores, uris: Sequence[str]) -> list[PlacedAnswer]:
    places = {choice.uri: i for i, choice in enumerate(scores.places)}
    return [PlacedAnswer(turn, places[uri]) for turn, uri in enumerate(uris) if uri in places]
