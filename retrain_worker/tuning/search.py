"""Ended trials in, the settings of the next one out, and whether a running one is worth going on (Optuna).

Nothing of Optuna's is kept: its study is rebuilt from our records each time, so that workers need no database of
their own and a lost queue loses nothing. Sources: TPE, Bergstra et al. 2011; Hyperband, Li et al. 2018.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from labelloop.store.studies import Range, Search, Trial

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
WARM_UP = 5  # complete trials before the median says anything

optuna.logging.set_verbosity(optuna.logging.WARNING)


class TrialProposal:
    """The settings of trial ``number``, a function of (search, trials that have ended, number)."""

    def __init__(self, search: Search, ended: Sequence[Trial], number: int, params: Mapping[str, Any] | None) -> None:
        space = {name: distribution(r) for name, r in search.space.items()}
        study = optuna.create_study(
            study_name="labelloop", direction="maximize", sampler=_sampler(search, number), pruner=_pruner(search)
        )
        study.add_trials([_frozen(t, space) for t in ended if t.state in STATES])
        if params is None and search.sampler == "grid":
            params = search.point(number)
        if params is not None:  # it had begun before: it goes on as what it was
            study.enqueue_trial(dict(params))
        self._trial = study.ask(space)
        self.params: dict[str, Any] = dict(self._trial.params)

    def hopeless(self, epoch: int, accuracy: float) -> bool:
        """Whether to stop after ``epoch`` (from 1) at this accuracy on the validation part."""
        self._trial.report(accuracy, epoch)
        return bool(self._trial.should_prune())


def distribution(bounds: Range) -> BaseDistribution:
    """The same range in Optuna's words."""
    if bounds.integer:
        return IntDistribution(*bounds.integer, step=bounds.step)
    if bounds.real:
        return FloatDistribution(*bounds.real, log=bounds.log)
    return CategoricalDistribution(bounds.choice)


def _sampler(search: Search, number: int) -> optuna.samplers.BaseSampler:
    seed = search.seed + number  # workers that ask at the same moment must not get the same answer
    if search.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def _pruner(search: Search) -> optuna.pruners.BasePruner:
    if search.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=WARM_UP, n_warmup_steps=2)
    if search.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource="auto", reduction_factor=3)
    return optuna.pruners.NopPruner()


def _frozen(trial: Trial, space: Mapping[str, BaseDistribution]) -> FrozenTrial:
    curve = {epoch: accuracy for epoch, (accuracy, _) in enumerate(trial.curve, 1)}
    return optuna.trial.create_trial(
        state=STATES[trial.state], params=dict(trial.params), distributions=dict(space), intermediate_values=curve,
        value=trial.accuracy,
    )  # fmt: skip
