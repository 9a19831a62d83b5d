"""Kept features and labels in, a calibrated vote of six members out, within a budget of seconds.

Each member is fitted once without each fold and once on everything; what it says of the hidden fold calibrates it and
is the evidence. All answers come from the ONNX bytes that will serve: what is judged is what goes live.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from labelloop.ensemble import Doubles, EnsembleHead, Member, tempered
from labelloop.errors import NotEnoughLabelsError, SettingsError
from labelloop.head import Floats
from labelloop.onnx_member import start
from labelloop.split import fold_of
from retrain_worker.logistic import ABSENT, Bools, Ints, Rotated, best_temperature, codes, judges, rotate
from retrain_worker.members import MEMBERS, Part

FOLDS = 3
LEAST = 1e-6  # of a probability, where calibration takes its logarithm

Clock = Callable[[], float]  # seconds, from any start


@dataclass(frozen=True, slots=True)
class EnsembleRecipe:
    """How an ensemble is fitted. With ``members`` the result depends on data and seed alone, else on time, too."""

    budget_s: float = 120.0  # for all folds of all members together; the first is always fitted
    seed: int = 0
    members: tuple[str, ...] | None = None  # exactly these, however long it takes: a recorded fit made again
    threads: int = 1  # fits beside each other; each of them is single-threaded
    clock: Clock = time.monotonic


@dataclass(frozen=True, slots=True)
class FittedEnsemble:
    """A head, its out-of-fold answers and who takes part."""

    head: EnsembleHead
    oof: Floats  # (n, classes) calibrated probabilities of each row by fits that did not see its fold
    left_out: Mapping[str, str]  # member -> why
    seconds: Mapping[str, float]  # member -> what it took
    size: int  # bytes of the head

    @property
    def members(self) -> tuple[str, ...]:
        """Who takes part: as `EnsembleRecipe.members` they give the same head again."""
        return tuple(member.name for member in self.head.members)


def fit_ensemble(
    features: Floats,
    labels: Sequence[str | None],
    groups: Sequence[str],
    *,
    classes: tuple[str, ...],
    recipe: EnsembleRecipe,
    trusted: Bools | None = None,
) -> FittedEnsemble:
    """Fit what the budget allows, calibrate out of fold. A row whose label is None is answered, never learned.

    ``trusted`` (n,): as in `logistic.fit_head`. NotEnoughLabelsError where fewer than two classes have labels,
    SettingsError where ``recipe.members`` names none we know.
    """
    targets = codes(labels, classes)
    if len(np.unique(targets[targets >= 0])) < 2:
        raise NotEnoughLabelsError("an ensemble needs labels of two classes")
    judged, sharpen = judges(targets >= 0, trusted)
    with threadpool_limits(limits=1):
        table = _Table.of(features, groups, len(classes))
        voters, left_out, seconds = _fit_members(table, targets, recipe)
    answers = {name: table.calibrated(voter.oof, targets, judged, sharpen) for name, voter in voters.items()}
    oof, temperature = table.calibrated(_mean([p for p, _ in answers.values()]), targets, judged, sharpen)
    members = tuple(
        Member(name, voter.model, answers[name][1], start(voter.model)) for name, voter in voters.items()
    )
    head = EnsembleHead(classes, features.shape[1], members, temperature)
    return FittedEnsemble(head, oof.astype(np.float32), left_out, seconds, len(head.dump()))


def cross_fit_ensemble(
    features: Floats,
    label_sets: Sequence[Sequence[str | None]],
    groups: Sequence[str],
    *,
    classes: tuple[str, ...],
    recipe: EnsembleRecipe,
) -> list[Floats]:
    """Out-of-fold probabilities (n, classes) of every row, for each label set, all under one recipe.

    Give `FittedEnsemble.members` in the recipe, so that every arm is fitted as the head was; no budget applies.
    A row whose label is None (or no class) is answered, never learned. SettingsError where no members are named.
    """
    if recipe.members is None:
        raise SettingsError("arms are compared under the members of one fit: name them in the recipe")
    with threadpool_limits(limits=1):
        table = _Table.of(features, groups, len(classes))
        return [_arm(table, codes(labels, classes), recipe) for labels in label_sets]


def _arm(table: _Table, targets: Ints, recipe: EnsembleRecipe) -> Floats:
    voters = [_without_folds(table, targets, name, _Deadline(recipe), recipe)[0] for name in _names(recipe)]
    usable = targets >= 0
    return _mean([table.calibrated(oof, targets, usable, True)[0] for oof in voters]).astype(np.float32)
