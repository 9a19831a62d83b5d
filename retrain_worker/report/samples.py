"""Answers in, which images to show out. Chosen by rules and hashes, so that two reports show the same ones."""

from __future__ import annotations

import numpy as np

from labelloop.rules.split import unit
from retrain_worker.report.findings import JudgedImages
from retrain_worker.report.measures import predicted

MISTAKES = 16
EXPLAINED = 12


def most_confident_mistakes(judged: JudgedImages) -> list[int]:
    """Places of all wrong answers, the surest first."""
    if not judged.uris:
        return []
    ours = judged.probabilities[0]
    wrong = np.flatnonzero(predicted(ours) != judged.truth)
    return sorted(wrong.tolist(), key=lambda place: (-float(ours[place].max()), judged.uris[place]))


def to_explain(judged: JudgedImages, seed: int) -> list[int]:
    """Places: half the surest mistakes, then right answers, one class after the other."""
    wrong = most_confident_mistakes(judged)[: EXPLAINED // 2]
    return [*wrong, *_right_ones(judged, seed)[: EXPLAINED - len(wrong)]]


def _right_ones(judged: JudgedImages, seed: int) -> list[int]:
    """A first of each class, then a second of each: by a hash, since the surest would all look alike."""
    if not judged.uris:
        return []
    right = np.flatnonzero(predicted(judged.probabilities[0]) == judged.truth).tolist()
    right.sort(key=lambda place: unit(f"explain:{seed}:{judged.uris[place]}"))
    turn: dict[int, int] = {}
    ranked = []
    for place in right:
        name = int(judged.truth[place])
        ranked.append((turn.setdefault(name, 0), name, place))
        turn[name] += 1
    return [place for _, _, place in sorted(ranked)]
