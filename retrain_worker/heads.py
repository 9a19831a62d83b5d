"""Rows and label sets in; the kind of head that the project wants, and what every arm says out of fold, out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from labelloop.classifier import Classifier
from labelloop.config import HeadSpec
from labelloop.head import Floats
from retrain_worker.logistic import Bools, Rotated, cross_fit, fit_head, rotate, rotate_with_pool
from retrain_worker.logistic import FittedHead as Fitted
from retrain_worker.spreading import neighbourhood

POOL_HELPS = 500  # labels, above which the rest of the pool has nothing to add (measured)
POOL_SAY = 1.0  # of all guesses together, as a share of what the labels say

Labels = Sequence[str | None]  # of every row; None: answered, never learned


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is learned, and the label sets it is compared with."""

    rows: Floats  # (n, features)
    groups: Sequence[str]
    labels: Labels
    classes: tuple[str, ...]
    trusted: Bools | None = None  # (n,): rows the backbone never saw; None: all of them
    weights: Floats | None = None  # (n,): how much a row counts in the fits; None: all alike
    pool: Floats | None = None  # (p, features): a sample of unlabelled images; None: they take no part
    arms: Sequence[Labels] = ()
    arm_classes: tuple[str, ...] = ()  # columns of the arms' answers


@dataclass(frozen=True, slots=True)
class HeadRecipe:
    """How. ``before``: the recipe of the champion's head, whose strength is where a search begins."""

    spec: HeadSpec = field(default_factory=HeadSpec)
    seed: int = 0
    before: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A head, its calibrated out-of-fold answers (n, classes), and what a version keeps of how it was made."""

    head: Classifier
    oof: Floats
    recipe: Mapping[str, Any]


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """In what the recipes of two heads, as versions keep them, make them different things: kind, members."""
    kinds = before.get("head", "linear"), after.get("head", "linear")
    if kinds[0] != kinds[1]:
        return (f"{kinds[1]} instead of {kinds[0]}",)
    members = [tuple(recipe.get("members", ())) for recipe in (before, after)]
    return () if members[0] == members[1] else (f"members {', '.join(members[1])} instead of {', '.join(members[0])}",)


def fit(lesson: Lesson, recipe: HeadRecipe) -> tuple[FittedHead, list[Floats]]:
    """The head, and of each arm its out-of-fold probabilities (n, arm classes) under the same recipe.

    NotEnoughLabelsError where fewer than two classes have labels.
    """
    return _ensemble(lesson, recipe) if recipe.spec.kind == "ensemble" else _linear(lesson, recipe)


def _linear(lesson: Lesson, recipe: HeadRecipe) -> tuple[FittedHead, list[Floats]]:
    """With as much of the pool as the labels' own out-of-fold answers speak for: most of it where labels are few."""
    tried = [(say, rotated, _fitted(rotated, lesson, recipe, say)) for say, rotated in _tables(lesson, recipe)]
    say, rotated, fitted = min(tried, key=lambda found: found[2].log_loss)
    start = fitted.folds if lesson.arm_classes == lesson.classes else None
    arms = cross_fit(
        rotated, lesson.arms, lesson.groups, classes=lesson.arm_classes, strength=fitted.strength, start=start,
        weights=lesson.weights,
    )  # fmt: skip
    return FittedHead(fitted.head, fitted.oof, {"strength": fitted.strength, "pool": say}), arms


def _tables(lesson: Lesson, recipe: HeadRecipe) -> Iterator[tuple[float, Rotated]]:
    """The labelled rows alone, and with the pool where it may help."""
    yield 0.0, rotate(lesson.rows)
    known = sum(label is not None for label in lesson.labels)
    if lesson.pool is not None and len(lesson.pool) and recipe.spec.pool and known <= POOL_HELPS:
        near = neighbourhood(np.concatenate([lesson.rows, lesson.pool]), seed=recipe.seed)
        yield POOL_SAY, rotate_with_pool(lesson.rows, lesson.pool, near, POOL_SAY)


def _fitted(rotated: Rotated, lesson: Lesson, recipe: HeadRecipe, say: float) -> Fitted:
    """The search begins at the strength of the last fit, if that had the pool's help or lacked it, too."""
    before = recipe.before.get("strength")
    alike = bool(recipe.before.get("pool")) == bool(say)
    return fit_head(
        rotated, lesson.labels, lesson.groups, classes=lesson.classes, trusted=lesson.trusted, weights=lesson.weights,
        strength=float(before) if before is not None and alike else None,
    )  # fmt: skip


def _ensemble(lesson: Lesson, recipe: HeadRecipe) -> tuple[FittedHead, list[Floats]]:
    from retrain_worker import ensemble  # LightGBM, XGBoost: a linear head needs none of them

    how = ensemble.EnsembleRecipe(
        budget_s=recipe.spec.budget_s, members=recipe.spec.members, threads=recipe.spec.threads, seed=recipe.seed
    )
    found = ensemble.fit_ensemble(
        lesson.rows, lesson.labels, lesson.groups, classes=lesson.classes, trusted=lesson.trusted, recipe=how,
        weights=lesson.weights,
    )  # fmt: skip
    again = ensemble.EnsembleRecipe(members=found.members, threads=how.threads, seed=how.seed)
    arms = ensemble.cross_fit_ensemble(
        lesson.rows, lesson.arms, lesson.groups, classes=lesson.arm_classes, recipe=again, weights=lesson.weights
    )
    kept = {"head": "ensemble", "members": list(found.members), "left_out": dict(found.left_out)}
    return FittedHead(found.head, found.oof, kept), arms
