"""Kept features and labels in, a calibrated vote of six members out, within a budget of seconds.

Each member is fitted once without each fold and once on everything; what all say of the hidden folds calibrates their
vote and is the evidence. All answers come from the ONNX bytes that will serve: what is judged is what goes live. To
calibrate each member as well was measured, too: no better (log loss .537 and .537 at 100 labels, .393 and .387 at 300).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from threadpoolctl import threadpool_limits

from labelloop.errors import NotEnoughLabelsError, SettingsError
from labelloop.model.ensemble import Doubles, EnsembleHead, Member, tempered
from labelloop.model.onnx_member import start
from labelloop.records.arrays import Floats
from labelloop.rules.split import fold_of
from retrain_worker.heads.logistic import ABSENT, Bools, Ints, Rotated, best_temperature, codes, judges, rotate
from retrain_worker.heads.members import MEMBERS, MemberTask

FOLDS = 3
LEAST = 1e-6  # of a probability whose logarithm is taken

Clock = Callable[[], float]  # seconds, from any start


@dataclass(frozen=True, slots=True)
class EnsembleRecipe:
    """How an ensemble is fitted. With ``members`` the result depends on data and seed alone, else on time, too."""

    budget_s: float = 120.0  # for all folds of all members together; the first member is always fitted
    seed: int = 0
    members: tuple[str, ...] | None = None  # exactly these, however long it takes: a recorded fit made again
    threads: int = 1  # fits beside each other; each of them is single-threaded
    clock: Clock = time.monotonic

    @property
    def names(self) -> tuple[str, ...]:
        """Who is asked to take part, cheap to dear; SettingsError for a name that is none."""
        members = tuple(MEMBERS) if self.members is None else self.members
        if not members or set(members) - set(MEMBERS):
            raise SettingsError(f"an ensemble's members are some of {', '.join(MEMBERS)}, not {', '.join(members)}")
        return tuple(name for name in MEMBERS if name in members)


@dataclass(frozen=True, slots=True)
class FittedEnsemble:
    """A head, its out-of-fold answers and who takes part."""

    head: EnsembleHead
    oof: Floats  # (n, classes) calibrated probabilities of each row by fits that did not see its fold
    left_out: Mapping[str, str]  # member -> why
    seconds: Mapping[str, float]  # member -> what it took, also where that was in vain
    size: int  # bytes of the head

    @property
    def members(self) -> tuple[str, ...]:
        """Who takes part: as `EnsembleRecipe.members` they give the same head again."""
        return tuple(member.name for member in self.head.members)


def fit_ensemble(  # noqa: PLR0913 -- the columns of a table, and a recipe
    features: Floats,
    labels: Sequence[str | None],
    groups: Sequence[str],
    *,
    classes: tuple[str, ...],
    recipe: EnsembleRecipe,
    trusted: Bools | None = None,
    weights: Floats | None = None,
) -> FittedEnsemble:
    """Fit what the budget allows, calibrate out of fold. A row whose label is None is answered, never learned.

    ``features`` (n, dimension). ``trusted``, ``weights`` (n,): as in `logistic.fit_head`.
    NotEnoughLabelsError where fewer than two classes have labels.
    """
    targets = codes(labels, classes)
    if len(np.unique(targets[targets >= 0])) < 2:
        raise NotEnoughLabelsError("an ensemble needs labels of two classes")
    with threadpool_limits(limits=1):  # sums in one order: the same result on any number of cores
        table = _LabelTable.of(features, targets, groups, len(classes), weights)
        work = _Work(recipe)
        voters = work.fit(table)
    judged, sharpen = judges(targets >= 0, trusted)
    votes = _mean([voter.oof for voter in voters.values()])
    temperature = table.temperature(votes, judged, sharpen)
    oof = tempered(votes, temperature).astype(np.float32)
    members = tuple(Member(name, voter.model, start(voter.model)) for name, voter in voters.items())
    head = EnsembleHead(classes, features.shape[1], members, temperature)
    return FittedEnsemble(head, oof, work.left_out, work.seconds, len(head.dump()))


def cross_fit_ensemble(
    features: Floats,
    label_sets: Sequence[Sequence[str | None]],
    groups: Sequence[str],
    *,
    classes: tuple[str, ...],
    recipe: EnsembleRecipe,
    weights: Floats | None = None,
) -> list[Floats]:
    """Out-of-fold probabilities (n, classes) of every row, for each label set, all under one recipe; not calibrated.

    ``recipe.members``: `FittedEnsemble.members`, so that every arm is fitted as the head was; no budget applies, and
    SettingsError where they are not given. A row whose label is None (or no class) is answered, never learned.
    """
    if recipe.members is None:
        raise SettingsError("arms are compared under the members of one fit: name them in the recipe")
    with threadpool_limits(limits=1):
        rotated = rotate(features)
        tables = [
            _LabelTable.of(features, codes(s, classes), groups, len(classes), weights, rotated) for s in label_sets
        ]
        return [_arm(table, recipe) for table in tables]


def _arm(table: _LabelTable, recipe: EnsembleRecipe) -> Floats:
    oofs = [table.out_of_fold(_fits(table, table.hidden, name, recipe, _never)) for name in recipe.names]
    return _mean(oofs).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _LabelTable:
    """One label set on the features. ``hidden`` (FOLDS, n): the targets without each fold."""

    features: Floats
    rotated: Rotated
    targets: Ints  # (n,) class numbers, -1: none
    folds: Ints
    hidden: Ints
    classes: int
    weights: Floats  # (n,)

    @classmethod
    def of(
        cls,
        features: Floats,
        targets: Ints,
        groups: Sequence[str],
        classes: int,
        weights: Floats | None = None,
        rotated: Rotated | None = None,
    ) -> _LabelTable:
        """Folds by group, so that duplicates share one and folds never move."""
        folds = np.array([fold_of(group, FOLDS) for group in groups], dtype=np.int64)
        hidden = np.where(folds[None] == np.arange(FOLDS)[:, None], -1, targets[None])
        rows = np.ascontiguousarray(features, dtype=np.float32)
        say = np.ones(len(rows), dtype=np.float32) if weights is None else weights
        return cls(rows, rotated or rotate(rows), targets, folds, hidden, classes, say)

    def part(self, targets: Ints, seed: int, tick: Callable[[], None]) -> MemberTask:
        """What a fit to these targets sees."""
        mine = targets >= 0
        return MemberTask(
            self.features[mine], self.rotated.rows[mine], self.rotated, targets[mine], self.weights[mine], self.classes,
            seed, tick,
        )  # fmt: skip

    def out_of_fold(self, models: Sequence[bytes | None]) -> Doubles:
        """Each row's probabilities (n, classes) by the model that did not see its fold."""
        out = np.zeros((len(self.targets), self.classes))
        for k, model in enumerate(models):
            mine = self.folds == k
            if model is None:  # one class was left, or none at all
                out[mine] = _only(self.hidden[k], self.classes)
            elif mine.any():
                out[mine] = start(model)(self.features[mine])
        return out

    def temperature(self, votes: Doubles, judged: Bools, sharpen: bool) -> float:
        """What suits the out-of-fold votes of the judged rows; at least 1 where they must not be sharpened."""
        learned = np.array([np.isin(np.arange(self.classes), hidden) for hidden in self.hidden])[self.folds]
        logits = np.where(learned, np.log(np.maximum(votes, LEAST)), ABSENT).astype(np.float32)
        best = best_temperature(logits[judged], self.targets[judged])
        return best if sharpen else max(best, 1.0)


def _only(targets: Ints, classes: int) -> Doubles:
    """What can be said where there are labels of one class or of none (classes,)."""
    labelled = np.isin(np.arange(classes), targets).astype(np.float64)
    return np.asarray(labelled if labelled.any() else np.full(classes, 1 / classes), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class _Voter:
    model: bytes
    oof: Doubles  # (n, classes), not calibrated


class _OutOfTimeError(Exception):
    """The budget ended in the middle of a fit."""


@dataclass(slots=True)
class _Work:
    """Fits one member after the other and keeps an eye on the clock."""

    recipe: EnsembleRecipe
    left_out: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def fit(self, table: _LabelTable) -> dict[str, _Voter]:
        """Members done within the budget; the first always takes part."""
        voters: dict[str, _Voter] = {}
        end = self.recipe.clock() + self.recipe.budget_s
        for name in self.recipe.names:
            bound = end if voters and self.recipe.members is None else np.inf
            began = self.recipe.clock()
            try:
                voters[name] = self._voter(table, name, bound)
            except _OutOfTimeError:
                self.left_out[name] = f"the budget of {self.recipe.budget_s:g} s did not suffice"
            self.seconds[name] = self.recipe.clock() - began
        return voters

    def _voter(self, table: _LabelTable, name: str, end: float) -> _Voter:
        def tick() -> None:
            if self.recipe.clock() >= end:
                raise _OutOfTimeError

        tick()
        *hidden, whole = _fits(table, np.concatenate([table.hidden, table.targets[None]]), name, self.recipe, tick)
        assert whole is not None, "two classes have labels"
        return _Voter(whole, table.out_of_fold(hidden))


def _fits(
    table: _LabelTable, blocks: Ints, name: str, recipe: EnsembleRecipe, tick: Callable[[], None]
) -> list[bytes | None]:
    """One model per row of targets; None where these name fewer than two classes."""
    seed = recipe.seed + list(MEMBERS).index(name)

    def fit(targets: Ints) -> bytes | None:
        enough = len(np.unique(targets[targets >= 0])) >= 2
        return MEMBERS[name](table.part(targets, seed, tick)) if enough else None

    with ThreadPoolExecutor(recipe.threads) as pool:
        return list(pool.map(fit, blocks))


def _mean(votes: Sequence[Doubles]) -> Doubles:
    return np.asarray(np.mean(votes, axis=0), dtype=np.float64)


def _never() -> None:
    """Time does not run out."""
