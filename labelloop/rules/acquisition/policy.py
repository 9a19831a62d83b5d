"""What is known of the model in, the strategy for now and the reason out. Pure.

Without a model, images that stand for many others teach most; with one, images that stand for many of which it is
unsure, and while it does not know every class, images that may be of one that it does not know. Whether its doubts can
be trusted is judged on randomly drawn labels, never on chosen ones: where they tell nothing, images that stand for many
others are better again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from labelloop.records.arrays import Floats
from labelloop.rules.acquisition.strategies import strategy

AUTO = "auto"
COLD = "herding"
WARM = "uncertain-herding"
SEEKING = "new-classes"
TRUSTED = 0.6  # chance that a wrong answer is less sure than a right one, below which doubts say little
NAMED = 5  # classes, of those that the model does not know
SETTLED = 20  # randomly drawn labels before anything is concluded from them ...
OF_EACH = 5  # ... right answers and wrong ones among them: one slip of a person must not decide


@dataclass(frozen=True, slots=True)
class Doubts:
    """How well the model's sureness tells its right answers from its wrong ones, on randomly drawn labels."""

    n: int  # randomly drawn labels
    wrong: int
    auc: float | None = None  # chance that a wrong answer is less sure than a right one; None: all right or all wrong
    high: float | None = None  # its upper 95 % bound

    @property
    def settled(self) -> bool:
        """Whether anything may be concluded."""
        return self.n >= SETTLED and min(self.wrong, self.n - self.wrong) >= OF_EACH


@dataclass(frozen=True, slots=True)
class Situation:
    """What a choice of strategy rests on."""

    has_model: bool
    doubts: Doubts = Doubts(0, 0)
    missing: tuple[str, ...] = ()  # classes that people can choose and the model does not know, for want of labels


@dataclass(frozen=True, slots=True)
class Chosen:
    """A strategy and why."""

    strategy: str
    why: str


def doubts_of(sureness: Floats, right: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Doubts:
    """(n,) sureness and whether each answer was right.

    The interval is as wide as ranks spread where sureness tells nothing (Mann and Whitney 1947). That is exact there,
    and never nothing, as an estimate from a few wrong answers may be.
    """
    n, wrong = len(right), int((~right).sum())
    if not 0 < wrong < n:
        return Doubts(n, wrong)
    ranks = rankdata(sureness)
    good = n - wrong
    auc = float((ranks[right].sum() - good * (good + 1) / 2) / (good * wrong))
    spread = float(np.sqrt((n + 1) / (12 * good * wrong)))
    return Doubts(n, wrong, auc, min(1.0, auc + float(norm.ppf(0.975)) * spread))


def choose(policy: str, situation: Situation) -> Chosen:
    """The strategy to order the queue by now. SettingsError where ``policy`` is neither auto nor a strategy."""
    if policy != AUTO:
        return _configured(policy, situation)
    if not situation.has_model:
        return _chosen(COLD, "no model yet")
    doubts = situation.doubts
    if doubts.settled and doubts.high is not None and doubts.high < TRUSTED:
        return _chosen(
            COLD,
            f"on {doubts.n} random labels, wrong predictions were hardly less sure than right ones "
            f"(in {doubts.auc:.0%} of pairs, at most {doubts.high:.0%})",
        )
    if situation.missing:
        return _chosen(SEEKING, _not_known(situation.missing))
    return _chosen(WARM, _why_warm(doubts))


def _not_known(missing: tuple[str, ...]) -> str:
    named = ", ".join(missing[:NAMED]) + (", …" if len(missing) > NAMED else "")
    return f"{len(missing)} class{'' if len(missing) == 1 else 'es'} with too few labels: {named}"


def _why_warm(doubts: Doubts) -> str:
    if not doubts.settled:
        needs = f"needs {SETTLED}, at least {OF_EACH} right and {OF_EACH} wrong"
        return f"{doubts.n} random labels, {doubts.wrong} answered wrongly; {needs}"
    share = f"a wrong prediction was less sure than a right one in {doubts.auc:.0%} of pairs"
    return f"on {doubts.n} random labels, {share}"


def _configured(policy: str, situation: Situation) -> Chosen:
    chosen = strategy(policy)
    if chosen.needs_model and not situation.has_model:
        return _chosen(COLD, f"no model yet; later {policy}, as configured")
    return _chosen(policy, "as configured")


def _chosen(name: str, why: str) -> Chosen:
    return Chosen(name, f"{name}: {strategy(name).words} ({why})")
