"""Rows and label sets in; the kind of head that the project wants, and what every arm says out of fold, out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from labelloop.config.project import HeadSpec
from labelloop.model.classifier import Classifier
from labelloop.model.head import Head
from labelloop.records.arrays import Floats
from retrain_worker.heads.logistic import (
    Bools,
    LinearFit,
    Rotated,
    codes,
    cross_fit,
    fit_head,
    folds_of,
    mass_of,
    rotate,
    rotate_with_pool,
    solve,
)
from retrain_worker.heads.novelty import Classes, NoveltyTable, fit_novelty
from retrain_worker.heads.spreading import neighbourhood

RARE = 0.005  # share of images of classes without a label, below which none is ever likelier than the named one
POOL_HELPS = 500  # labels, above which the rest of the pool has nothing to add (measured)
ALONE = 50  # labels, below which no ensemble is fitted while a class has none: it could not tell such an image
POOL_MOST = 1000  # unlabelled images from which a head learns, too
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
    missing: int = 0  # classes that people can choose beside ``classes``: none of their labels is among ``labels``

    @property
    def learned(self) -> int:
        """How many rows have a label."""
        return sum(label is not None for label in self.labels)


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
    unseen: Floats | None = None  # (n,) out of fold: how likely of a class without a label; None: every class has one


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
    early = lesson.missing > 0 and lesson.learned < ALONE
    return _linear(lesson, recipe) if early or recipe.spec.kind == "linear" else _ensemble(lesson, recipe)


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear head, how much the pool had to say, and what the search left behind."""

    head: Head
    rotated: Rotated
    fit: LinearFit
    say: float
    unseen: Floats | None = None  # as in `FittedHead`


def fit_linear(lesson: Lesson, recipe: HeadRecipe) -> Linear:
    """With as much of the pool as the labels' own out-of-fold answers speak for: most of it where labels are few."""
    says = (0.0, POOL_SAY) if recipe.spec.pool and _pool_helps(lesson) else (0.0,)
    tried = [(say, rotated, _fitted(rotated, lesson, recipe, say)) for say, rotated in _tables(lesson, says, recipe)]
    say, rotated, best = min(tried, key=lambda one: (one[2].cost, -one[0]))  # where nothing tells, the pool has a say
    return _with_novelty(Linear(best.head, rotated, best, say), lesson)


def refit(lesson: Lesson, before: Linear) -> Linear:
    """The same with other labels: strength, temperature and the pool's say are kept, nothing is judged."""
    [(_, rotated)] = _tables(lesson, (before.say if _pool_helps(lesson) else 0.0,), HeadRecipe())
    targets = codes(lesson.labels, lesson.classes)
    mass = mass_of(rotated, targets[None], len(lesson.classes), lesson.weights)
    solution = solve(rotated, mass, before.fit.strength)[0]
    head = rotated.head(solution, lesson.classes, before.head.temperature)
    return _with_novelty(replace(before, head=head, rotated=rotated, unseen=None), lesson)


def _linear(lesson: Lesson, recipe: HeadRecipe) -> tuple[FittedHead, list[Floats]]:
    fitted = fit_linear(lesson, recipe)
    solution = fitted.fit
    arms = cross_fit(
        fitted.rotated, lesson.arms, lesson.groups, classes=lesson.arm_classes, strength=solution.strength,
        start=solution.folds if lesson.arm_classes == lesson.classes else None, weights=lesson.weights,
    )  # fmt: skip
    kept = {"strength": solution.strength, "pool": fitted.say}
    return FittedHead(fitted.head, solution.oof, kept, fitted.unseen), arms


def _with_novelty(fitted: Linear, lesson: Lesson) -> Linear:
    """While people can choose classes without a label, the head says of an image how likely it is of one."""
    classes = Classes(len(lesson.classes), lesson.missing)
    if not lesson.missing or classes.share(lesson.learned) < RARE:
        return fitted
    targets = codes(lesson.labels, lesson.classes)
    table = NoveltyTable(lesson.rows, targets, lesson.rows[:0] if lesson.pool is None else lesson.pool)
    novelty, unseen = fit_novelty(table, classes, folds_of(lesson.groups))
    return replace(fitted, head=replace(fitted.head, novelty=novelty), unseen=unseen)


def _pool_helps(lesson: Lesson) -> bool:
    return lesson.pool is not None and len(lesson.pool) > 0 and lesson.learned <= POOL_HELPS


def _tables(lesson: Lesson, says: Sequence[float], recipe: HeadRecipe) -> Iterator[tuple[float, Rotated]]:
    """The labelled rows alone, and with the pool where it has a say."""
    for say in says:
        if not say or lesson.pool is None:
            yield 0.0, rotate(lesson.rows)
        else:
            near = neighbourhood(np.concatenate([lesson.rows, lesson.pool]), seed=recipe.seed)
            yield say, rotate_with_pool(lesson.rows, lesson.pool, near, say)


def _fitted(rotated: Rotated, lesson: Lesson, recipe: HeadRecipe, say: float) -> LinearFit:
    """The search begins at the strength of the last fit, if that had the pool's help or lacked it, too."""
    before = recipe.before.get("strength")
    alike = bool(recipe.before.get("pool")) == bool(say)
    return fit_head(
        rotated, lesson.labels, lesson.groups, classes=lesson.classes, trusted=lesson.trusted, weights=lesson.weights,
        strength=float(before) if before is not None and alike else None,
    )  # fmt: skip


def _ensemble(lesson: Lesson, recipe: HeadRecipe) -> tuple[FittedHead, list[Floats]]:
    from retrain_worker.heads import ensemble  # LightGBM, XGBoost: a linear head needs none of them

    how = ensemble.EnsembleRecipe(
        budget_s=recipe.spec.budget_s, members=recipe.spec.members, threads=recipe.spec.threads, seed=recipe.seed
    )
    fitted = ensemble.fit_ensemble(
        lesson.rows, lesson.labels, lesson.groups, classes=lesson.classes, trusted=lesson.trusted, recipe=how,
        weights=lesson.weights,
    )  # fmt: skip
    again = ensemble.EnsembleRecipe(members=fitted.members, threads=how.threads, seed=how.seed)
    arms = ensemble.cross_fit_ensemble(
        lesson.rows, lesson.arms, lesson.groups, classes=lesson.arm_classes, recipe=again, weights=lesson.weights
    )
    kept = {"head": "ensemble", "members": list(fitted.members), "left_out": dict(fitted.left_out)}
    return FittedHead(fitted.head, fitted.oof, kept), arms
