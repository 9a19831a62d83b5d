"""A learning curve and a policy in; whether to go on labelling, with the reasons, out. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from labelloop.config.project import Stop
from labelloop.records.curve import RIGHT, KeptCurve
from labelloop.rules.intervals import Z95
from labelloop.rules.learning_curve import ForecastCurve, ForecastInterval, Reach, curve_of

AHEAD = (50, 100, 200, 500)  # labels that are forecast
NEXT = 100  # those that `stop.gain` is asked of
TELLS = 0.25  # a 95 % interval of today's accuracy wider than this tells nothing
FEW = 20  # random labels below which nothing is said
GUESS = 0.85  # accuracy, where nothing says better
DOUBLED = 30  # images with two people's labels, below which their disagreement says nothing
CLOSE = 0.005  # to the target: nobody can say how many random labels would tell


class Act(StrEnum):
    """What a person might do."""

    STOP = "stop"
    GO_ON = "go on"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Advice:
    """Why, and what else there is."""

    act: Act
    reasons: tuple[str, ...]
    instead: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Forecast:
    """After so many more labels."""

    more: int
    accuracy: ForecastInterval
    gain: ForecastInterval


@dataclass(frozen=True, slots=True)
class Outlook:
    """Where labelling leads. ``sentence``: that in one line."""

    sentence: str
    advice: Advice
    target: float | None = None
    now: ForecastInterval | None = None
    ahead: tuple[Forecast, ...] = ()
    reach: Reach | None = None  # of the target
    curve: ForecastCurve | None = None  # None: too few random labels


def outlook(kept: KeptCurve, policy: Stop, *, quota: float) -> Outlook:
    """``quota``: share of the labels that people give which are drawn at random, and train nothing."""
    if kept.images < FEW or not kept.current:
        sentence = _too_little(kept.images, _wanted(GUESS)) if kept.images < FEW else _unjudged(kept)
        return Outlook(sentence, _at_once(kept, sentence) or Advice(Act.CANNOT_TELL, (sentence,)), policy.target)
    curve = curve_of(kept.arrays(), share=max(1 - quota, 0.01))
    reach = curve.to(policy.target) if policy.target is not None else None
    position = _Position(kept, policy, curve, curve.accuracy(), reach)
    sentence = _sentence(position)
    advice = _at_once(kept, sentence) or _advise(position, sentence)
    if position.vague:  # figures would say what the sentence denies
        return Outlook(sentence, advice, policy.target)
    ahead = tuple(Forecast(more, curve.accuracy(more), curve.gain(more)) for more in AHEAD)
    return Outlook(sentence, advice, policy.target, position.now, ahead, reach, curve)


@dataclass(frozen=True, slots=True)
class _Position:
    kept: KeptCurve
    policy: Stop
    curve: ForecastCurve
    now: ForecastInterval
    reach: Reach | None

    @property
    def vague(self) -> bool:
        return self.now.width > TELLS

    @property
    def sure(self) -> float:
        """What today's accuracy is at least, by the curve and by the champion's answers: these assume nothing."""
        doubt = 1 - self.policy.confidence
        own = self.kept.current[-1].wrong
        return min(float(np.quantile(self.curve.accuracies(), doubt)), at_least(own.count(RIGHT), len(own), doubt))

    @property
    def looks_reached(self) -> bool:
        """Likely, sure or not."""
        return self.reach is not None and self.reach.middle == 0

    @property
    def most(self) -> float:
        """What the next labels bring at most, at the policy's confidence."""
        return float(np.quantile(self.curve.gains(NEXT), self.policy.confidence))

    @property
    def as_people(self) -> float:
        """How sure it is that the model differs from a person no more often than two people differ."""
        if self.kept.doubled < DOUBLED:
            return 0.0
        alike = self.kept.doubled - self.kept.differ
        theirs = np.random.default_rng(0).beta(self.kept.differ + 0.5, alike + 0.5, len(self.curve.error))
        return float((1 - self.curve.accuracies() <= theirs).mean())


def _at_once(kept: KeptCurve, sentence: str) -> Advice | None:
    """What holds whatever the curve says. Nobody is told to stop while a class is hardly known."""
    if kept.left == 0:
        more = ("a fine-tune may bring more (`labelloop retrain`)",)
        return Advice(Act.STOP, ("no image is left to label", sentence), more)
    if not kept.waiting:
        return None
    few = ", ".join(f"{name} {n}" for name, n in sorted(kept.waiting.items()))
    reason = f"classes with too few labels: {few} (remove one that does not occur from the label config)"
    return Advice(Act.GO_ON, (reason, sentence))


def _advise(position: _Position, sentence: str) -> Advice:
    """The first of these that holds."""
    policy = position.policy
    if position.vague:
        return Advice(Act.CANNOT_TELL, (sentence,))
    reasons = _enough(position)
    if reasons:
        return Advice(Act.STOP, tuple(dict.fromkeys((*reasons, sentence))), _instead(position))
    if position.looks_reached:
        return Advice(Act.CANNOT_TELL, (sentence,))
    soon = (f"the next {NEXT} labels: {_gain(position.curve.gain(NEXT))}",) if policy.target is not None else ()
    return Advice(Act.GO_ON, (sentence, *soon), _more(position))


def _enough(position: _Position) -> tuple[str, ...]:
    """Every reason to stop."""
    policy, reasons = position.policy, []
    if policy.target is not None and position.sure >= policy.target:
        reasons.append(_shown(position, policy.target))
    if position.most < policy.gain:
        reasons.append(
            f"the next {NEXT} labels bring at most {_points(position.most)} ({percent(policy.confidence)} sure); "
            f"less than {_points(policy.gain)} is not worth them (stop.gain)"
        )
    if position.as_people >= policy.confidence:
        share = position.kept.differ / position.kept.doubled
        reasons.append(
            f"the model differs from people as seldom as people from each other ({whole(share)} % of "
            f"{position.kept.doubled} random images that two have labelled)"
        )
    return tuple(reasons)


def _instead(position: _Position) -> tuple[str, ...]:
    """What may be done in place of labelling on."""
    rest = "`labelloop auto-label` labels the rest where the model is sure enough"
    return (*_more(position), rest)


def _more(position: _Position) -> tuple[str, ...]:
    """What may bring more than labels under this backbone."""
    target = position.policy.target
    if target is not None and position.sure >= target:
        return ()
    flat = position.curve.gain(NEXT).middle < position.policy.gain
    far = position.reach is not None and position.reach.middle is None
    if not (flat or far):
        return ()
    return ("a fine-tune may bring more (`labelloop retrain`): this curve is that of one backbone",)


# --- words


def _sentence(position: _Position) -> str:
    """The one line."""
    target, reach = position.policy.target, position.reach
    if position.vague:
        return _too_little(position.kept.images, math.ceil(position.kept.images * (position.now.width / TELLS) ** 2))
    if target is None or reach is None:
        return f"{right(position.now)}; {NEXT} more labels: {_gain(position.curve.gain(NEXT))}"
    if position.sure >= target:
        return _shown(position, target)
    if position.looks_reached:
        return _not_shown(position, target)
    if reach.middle is None:
        return _out_of_sight(position, target)
    few = " (no more images are left)" if reach.middle > position.kept.left / position.curve.share else ""
    return f"about {rounded(reach.middle)} more labels to {percent(target)} ({_between(position, reach)}){few}"


def _too_little(have: int, enough: int) -> str:
    """Never as many as there are, or the sentence would deny itself."""
    needed = rounded(max(enough, have + 1))
    return f"too little evidence: {have} random labels; about {needed} are needed"


def _unjudged(kept: KeptCurve) -> str:
    return f"{kept.live} could not be judged: its head or its features cannot be read (`labelloop doctor`)"


def _shown(position: _Position, target: float) -> str:
    return f"{percent(target)} is reached: {_surely(position)}"


def _not_shown(position: _Position, target: float) -> str:
    """It looks good enough, on too few random labels to be sure."""
    ahead = position.now.middle - target
    begun = f"probably at {percent(target)} already, but {position.kept.images} random labels do not prove it"
    if ahead < CLOSE:
        return f"{begun}: {_surely(position)}"
    images = rounded(position.kept.images * ((position.now.middle - position.sure) / ahead) ** 2)
    return f"{begun}: {_surely(position)}; about {images} might (a larger queue.quota brings them sooner)"


def _surely(position: _Position) -> str:
    least = f"{100 * math.floor(1000 * position.sure) / 1000:.1f}"  # never more than is shown
    return f"{whole(position.now.middle)} % right, at least {least} % ({percent(position.policy.confidence)} sure)"


def _out_of_sight(position: _Position, target: float) -> str:
    far = position.curve.horizon
    there = position.curve.track([far])[0]
    return (
        f"{percent(target)} is out of reach with this backbone: {rounded(far)} labels later the curve is "
        f"at {whole(there.middle)} % ({whole(there.low)} to {whole(there.high)})"
    )


def _between(position: _Position, reach: Reach) -> str:
    low = rounded(reach.low) if reach.low else "none"
    if reach.high is None:
        return f"between {low} and more than {rounded(position.curve.horizon)}"
    return f"between {low} and {rounded(reach.high)}"


def _gain(gain: ForecastInterval) -> str:
    return f"about {100 * gain.middle:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"


def right(accuracy: ForecastInterval) -> str:
    """A share of right answers with its 95 % interval."""
    return f"{whole(accuracy.middle)} % right ({whole(accuracy.lowest)} to {whole(accuracy.highest)})"


def _points(share: float) -> str:
    return f"{100 * share:.2g} points"


def percent(share: float) -> str:
    """As a person gave it."""
    return f"{100 * share:.4g} %"


def whole(share: float) -> str:
    """In whole percent: no curve is known better."""
    return f"{100 * share:.0f}"


def rounded(labels: float) -> int:
    """To two digits: nobody knows more."""
    return int(float(f"{labels:.2g}"))


def at_least(right: int, of: int, doubt: float) -> float:
    """The lower bound of a share that is wrong with probability ``doubt`` at most (Clopper and Pearson 1934)."""
    from scipy.special import betaincinv  # a third of a second, which every command would pay

    return float(betaincinv(right, of - right + 1, doubt)) if right else 0.0


def _wanted(accuracy: float) -> int:
    """Random labels whose interval is narrow enough to say something."""
    return math.ceil(accuracy * (1 - accuracy) * (2 * Z95 / TELLS) ** 2)
