"""The rule that compares: challenger against champion on the same images. Pure."""

from __future__ import annotations

import math

from scipy.special import betainc

from labelloop.config.project import Gate
from labelloop.records.evidence import (
    Comparison,
    Contradiction,
    Evaluation,
    LossComparison,
    Outcome,
    Paired,
    PreLabels,
    Verdict,
)
from labelloop.rules.intervals import Z95

Z_TENTH = 1.2816  # standard errors
DOUBTED = 1.0  # standard errors: new labels that the live head would have given itself spoil nothing
LEARNED_ANYWAY = "labels that stay are learned with the next ones"
FEW = 50  # labels out of fold, below which a first head is judged by its pre-labels
FEW_LEVEL = 0.10  # one side
COVERED = 0.5  # of the classes that people can choose
LOOKS = 3.0  # batches of new labels: people have been told twice, and left them as they are


def compared(evaluation: Evaluation, policy: Gate) -> Verdict:
    """Whether the challenger is as good as the champion. A first head has no comparison."""
    if evaluation.kind == "retrain" and evaluation.test_comparison:
        return _judge_retrain(evaluation.test_comparison, policy)
    if evaluation.kind != "retrain" and evaluation.comparison:
        return _judge_refresh(evaluation, evaluation.comparison, policy)
    return _judge_first(evaluation)


def _judge_first(evaluation: Evaluation) -> Verdict:
    """A first head of few labels by its pre-labels; later it must beat always naming the largest class.

    From `FEW` labels on a head of many hard classes may go live that is seldom right: it orders the queue.
    """
    accuracy, low = evaluation.accuracy, evaluation.accuracy_low
    if accuracy is None or low is None:
        return _hold("no evidence: the backbone was trained on every label")
    figures = (
        f"{accuracy:.3f} right out of fold on {evaluation.judged_on} labels (95 % bound: {low:.3f}); "
        f"largest class alone {evaluation.majority:.3f}"
    )
    if evaluation.shown and evaluation.judged_on < FEW:
        return _judge_few(evaluation, evaluation.shown)
    if low > evaluation.majority:
        return Verdict(Outcome.PROMOTE, ("first model: beats the largest class", figures))
    return _hold("first model: not yet shown to beat the largest class", figures)


def _judge_few(evaluation: Evaluation, found: PreLabels) -> Verdict:
    """Few labels: the pre-labels out of fold must be right more often than wrong, and than the largest class.

    By an exact test (mid-p, one side), in which images of one group count as many as they are worth (Rao and Scott
    1992). Only where a class has two labels can any be right; what the head does not name
    out of fold, people would not have been shown. And it must know half of the classes that people can choose.
    """
    told = (
        f"few labels: {found.right} pre-labels right out of fold, {found.wrong} wrong, {found.hidden} not shown; "
        f"{_labels_alone(found.only)}{_worth(found)}",
        coverage(evaluation),
    )
    if len(evaluation.classes) < COVERED * (len(evaluation.classes) + len(evaluation.missing)):
        return _hold("first model: knows fewer than half of the classes", *told[::-1])
    if few_level(found) < FEW_LEVEL:
        return Verdict(Outcome.PROMOTE, ("first model: pre-labels are right more often than wrong", *told))
    return _hold("first model: not yet shown that pre-labels are right more often than wrong", *told)


def _worth(found: PreLabels) -> str:
    """Where groups make labels say less than as many images would that are not related."""
    n = found.right + found.wrong
    if found.independent is None or found.independent > n - 0.5:
        return ""
    return f"; related images: the {n} shown say as much as {found.independent:.0f} that are not"


def few_level(found: PreLabels) -> float:
    """How likely as many right pre-labels are by chance: of as many wrong ones, or of naming the largest class."""
    shown, chance = found.right + found.wrong, max(0.5, found.majority)
    n = shown if found.independent is None else found.independent
    right = n * found.right / max(shown, 1)
    return (_at_least(right + 1, n, chance) + _at_least(right, n, chance)) / 2


def _at_least(right: float, n: float, chance: float) -> float:
    """Of the binomial distribution, as the incomplete beta function has it for numbers that are not whole, too."""
    return 1.0 if right <= 0 else 0.0 if right >= n + 1 else float(betainc(right, n - right + 1, chance))


def coverage(evaluation: Evaluation) -> str:
    """How many of the classes that people can choose the head knows, in words."""
    known, missing = len(evaluation.classes), evaluation.missing
    if not missing:
        return f"knows all {known} classes"
    be = "has" if len(missing) == 1 else "have"
    return (
        f"knows {known} of {known + len(missing)} classes: {', '.join(missing)} {be} too few labels; "
        "images that look like another class get no pre-label"
    )


def _labels_alone(n: int) -> str:
    return f"{labels_in_words(n)}, the only one of {'its class' if n == 1 else 'each class'}, cannot be judged"


def _judge_refresh(evaluation: Evaluation, found: Comparison, policy: Gate) -> Verdict:
    """New labels under an old recipe: accept unless they are shown, or look, to do harm.

    Proof of improvement is not asked for: on actively chosen labels it comes only every few hundred. Arms
    that agree everywhere are still promoted when there are new labels: the order of the queue and the
    calibration did change, and holding back would let labels pile up unlearned.
    """
    if evaluation.new_labels == 0 and not evaluation.renamed:
        return _hold("no new labels since the champion")
    if found.n == 0:
        return _judge_unseen(evaluation, policy)
    told = (told_of(found), *_waiting(evaluation))
    earlier, news = evaluation.earlier, evaluation.contradiction
    told = (*told, *([_told_loss(earlier)] if earlier else []), *([_told_news(news, policy)] if news else []))
    if found.high < 0:
        return _reject(f"new labels make it worse: {_look_at(news)}", *told)
    doubt = _doubt(evaluation, found, policy)
    return _hold(doubt, *told) if doubt else _bounded(evaluation, told, policy)


def _doubt(evaluation: Evaluation, found: Comparison, policy: Gate) -> str | None:
    """Why new labels look as if they did harm; None where nothing says so, or their gain is proven."""
    earlier, news = evaluation.earlier, evaluation.contradiction
    if found.low > 0:
        return None
    if news and _contradicts(news, policy):
        return f"new labels contradict confident predictions of the champion: {_look_at(news)}; {LEARNED_ANYWAY}"
    if earlier and _spoilt(earlier, policy) and (news is None or news.deviation > DOUBTED):
        return f"new labels spoil the earlier ones: {_look_at(news)}; decided again with the next labels"
    if not earlier and loses(found, policy.tolerance):  # people changed every label there was
        return f"looks worse by more than {points(policy.tolerance)}, not yet proven"
    return None


def _contradicts(news: Contradiction, policy: Gate) -> bool:
    """Whether the live version would hardly ever have given these labels, and nobody has said yet that they stay.

    It may be wrong itself, and surely so: then people leave the labels, and it learns them.
    """
    return news.deviation > policy.contradiction and news.batches < LOOKS


def _look_at(news: Contradiction | None) -> str:
    if news is None or not news.tasks:
        return "check the newest"
    return f"check task{'s' if len(news.tasks) > 1 else ''} {', '.join(map(str, news.tasks))}"


def _spoilt(earlier: LossComparison, policy: Gate) -> bool:
    """Whether the labels that both have learned are answered less well, by more than chance makes it in one of ten.

    The accuracy on all labels tells far less: new ones were chosen because they are hard, ten of them are a fifth of
    the evidence, and a wrong batch agrees with itself. See `docs/measured.md`, "The gate of a refresh".
    """
    return earlier.difference > max(policy.loss_tolerance, _chance(earlier))


def _chance(found: Paired) -> float:
    """A difference that chance exceeds, on one side, once in ten."""
    return Z_TENTH * (found.high - found.low) / (2 * Z95)


def _bounded(evaluation: Evaluation, told: tuple[str, ...], policy: Gate) -> Verdict:
    """Small losses within tolerance may not add up against the reference version.

    Where people renamed or dropped a class the live version cannot name what they see: the sum waits for more labels.
    """
    reference = evaluation.reference
    lost = reference and loses(reference, max(policy.reference_tolerance, _chance(reference)))
    if reference and lost and not evaluation.renamed:
        bound = f"lost more than {points(policy.reference_tolerance)} in all since the reference version"
        outcome = Outcome.REJECT if reference.high < 0 else Outcome.HOLD
        return Verdict(outcome, (bound, f"reference: {told_of(reference)}", *told))
    return Verdict(Outcome.PROMOTE, (_learned(evaluation, policy), *told))


def _learned(evaluation: Evaluation, policy: Gate) -> str:
    learned = f"trained on {_new_labels(evaluation.new_labels)}"
    if evaluation.renamed:
        names = ", ".join(evaluation.renamed)
        learned += f"; follows the renamed, merged or dropped classes ({names})"
    found = evaluation.comparison
    if found and found.difference < -policy.tolerance:
        if evaluation.earlier:
            return f"{learned}; no loss on the earlier labels, too few new ones to count"
        return f"{learned}; one image lost, too few to count"
    return f"{learned}; as accurate as the champion (within {points(policy.tolerance)})"


def _judge_unseen(evaluation: Evaluation, policy: Gate) -> Verdict:
    """No label that the backbone has not seen: only the test bucket can tell."""
    found = evaluation.test_comparison
    why = "the backbone was trained on every label: only the test split counts"
    if found is None or found.n < policy.min_test_labels:
        return _hold(why, _not_enough(found, policy))
    if found.high < 0:
        return _reject(why, told_of(found))
    if loses(found, policy.tolerance):
        return _hold(why, told_of(found))
    return Verdict(Outcome.PROMOTE, (why, told_of(found)))


def _judge_retrain(found: Comparison, policy: Gate) -> Verdict:
    """A new backbone is dear to swap: it must be shown not to be worse, and must not look worse."""
    if found.high < 0:
        return _reject("the new backbone is worse", told_of(found))
    if found.low > 0:
        return Verdict(Outcome.PROMOTE, ("the new backbone is better", told_of(found)))
    if found.n < policy.min_test_labels:
        return _hold(_not_enough(found, policy), told_of(found))
    if found.changed == 0:
        return _hold("same predictions on every test image: a swap gains nothing", told_of(found))
    if found.low >= -policy.tolerance and found.difference >= 0:
        return Verdict(Outcome.PROMOTE, ("the new backbone is at least as good", told_of(found)))
    return _hold(_not_enough(found, policy), told_of(found))


def loses(found: Comparison, tolerance: float) -> bool:
    """Whether the bare figure is beyond tolerance; a single image never is."""
    return found.difference < -max(tolerance, 1.5 / found.n)


def _not_enough(found: Comparison | None, policy: Gate) -> str:
    if found is None or found.n == 0:
        return "not enough evidence: no test labels"
    half = (found.high - found.low) / 2
    needed = max(policy.min_test_labels, found.n + 1, math.ceil(found.n * (half / policy.tolerance) ** 2))
    size = float(f"{needed:.2g}")
    return (
        f"not enough evidence: {found.n} test labels, about {size:.0f} needed "
        f"to detect a difference of {points(policy.tolerance)}"
    )


def told_of(found: Comparison) -> str:
    """Both accuracies and their difference, with its interval."""
    return (
        f"{found.on}: {found.challenger:.3f} against {found.champion:.3f} on {labels_in_words(found.n)} "
        f"(difference {100 * found.difference:+.1f} points, "
        f"95 % interval {100 * found.low:+.1f} to {100 * found.high:+.1f})"
    )


def _told_loss(found: LossComparison) -> str:
    return (
        f"{found.on}: log loss {found.challenger:.3f} against {found.champion:.3f} on {labels_in_words(found.n)} "
        f"(difference {found.difference:+.3f}, 95 % interval {found.low:+.3f} to {found.high:+.3f}; less is better)"
    )


def _told_news(news: Contradiction, policy: Gate) -> str:
    plausible = "not plausible" if news.deviation > policy.contradiction else "plausible"
    return (
        f"{news.n} new label{'' if news.n == 1 else 's'}: log loss {news.loss:.3f}, champion expected "
        f"{news.expected:.3f} ({news.deviation:+.1f} SE): {plausible}"
    )


def _waiting(evaluation: Evaluation) -> tuple[str, ...]:
    few = ", ".join(f"{name} {n}" for name, n in sorted(evaluation.waiting.items()))
    waiting = (f"classes with too few labels: {few}",) if few else ()
    return (*waiting, coverage(evaluation)) if evaluation.missing else waiting


def labels_in_words(n: int) -> str:
    """So many labels."""
    return f"{n} label" if n == 1 else f"{n} labels"


def _new_labels(n: int) -> str:
    return f"{n} new or changed label{'' if n == 1 else 's'}"


def points(share: float) -> str:
    """A share in percentage points."""
    return f"{100 * share:.3g} points"


def _hold(*reasons: str) -> Verdict:
    return Verdict(Outcome.HOLD, reasons)


def _reject(*reasons: str) -> Verdict:
    return Verdict(Outcome.REJECT, reasons)
