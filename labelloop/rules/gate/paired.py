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


def _judge_few(evaluation: Evaluation, shown: PreLabels) -> Verdict:
    """Few labels: the pre-labels out of fold must be right more often than wrong, and than the largest class.

    By an exact test (mid-p, one side), in which images of one group count as many as they are worth (Rao and Scott
    1992). Only where a class has two labels can any be right; what the head does not name
    out of fold, people would not have been shown. And it must know half of the classes that people can choose.
    """
    figures = (
        f"few labels: {shown.right} pre-labels right out of fold, {shown.wrong} wrong, {shown.hidden} not shown; "
        f"{_labels_alone(shown.only)}{_worth(shown)}",
        coverage(evaluation),
    )
    if len(evaluation.classes) < COVERED * (len(evaluation.classes) + len(evaluation.missing)):
        return _hold("first model: knows fewer than half of the classes", *figures[::-1])
    if few_level(shown) < FEW_LEVEL:
        return Verdict(Outcome.PROMOTE, ("first model: pre-labels are right more often than wrong", *figures))
    return _hold("first model: not yet shown that pre-labels are right more often than wrong", *figures)


def _worth(shown: PreLabels) -> str:
    """Where groups make labels say less than as many images would that are not related."""
    n = shown.right + shown.wrong
    if shown.independent is None or shown.independent > n - 0.5:
        return ""
    return f"; related images: the {n} shown say as much as {shown.independent:.0f} that are not"


def few_level(shown: PreLabels) -> float:
    """How likely as many right pre-labels are by chance: of as many wrong ones, or of naming the largest class."""
    named, chance = shown.right + shown.wrong, max(0.5, shown.majority)
    n = named if shown.independent is None else shown.independent
    right = n * shown.right / max(named, 1)
    return (_at_least(right + 1, n, chance) + _at_least(right, n, chance)) / 2


def _at_least(right: float, n: float, chance: float) -> float:
    """Of the binomial distribution, as the incomplete beta function has it for numbers that are not whole, too."""
    return 1.0 if right <= 0 else 0.0 if right >= n + 1 else float(betainc(right, n - right + 1, chance))


def coverage(evaluation: Evaluation) -> str:
    """How many of the classes that people can choose the head knows, in words."""
    count, missing = len(evaluation.classes), evaluation.missing
    if not missing:
        return f"knows all {count} classes"
    be = "has" if len(missing) == 1 else "have"
    return (
        f"knows {count} of {count + len(missing)} classes: {', '.join(missing)} {be} too few labels; "
        "images that look like another class get no pre-label"
    )


def _labels_alone(n: int) -> str:
    return f"{labels_in_words(n)}, the only one of {'its class' if n == 1 else 'each class'}, cannot be judged"


def _judge_refresh(evaluation: Evaluation, comparison: Comparison, policy: Gate) -> Verdict:
    """New labels under an old recipe: accept unless they are shown, or look, to do harm.

    Proof of improvement is not asked for: on actively chosen labels it comes only every few hundred. Arms
    that agree everywhere are still promoted when there are new labels: the order of the queue and the
    calibration did change, and holding back would let labels pile up unlearned.
    """
    if evaluation.new_labels == 0 and not evaluation.renamed:
        return _hold("no new labels since the champion")
    if comparison.n == 0:
        return _judge_unseen(evaluation, policy)
    figures = (figures_of(comparison), *_waiting(evaluation))
    earlier, contradiction = evaluation.earlier, evaluation.contradiction
    figures = (
        *figures,
        *([_losses_of(earlier)] if earlier else []),
        *([_contradiction_of(contradiction, policy)] if contradiction else []),
    )
    if comparison.high < 0:
        return _reject(f"new labels make it worse: {_look_at(contradiction)}", *figures)
    doubt = _doubt(evaluation, comparison, policy)
    return _hold(doubt, *figures) if doubt else _bounded(evaluation, figures, policy)


def _doubt(evaluation: Evaluation, comparison: Comparison, policy: Gate) -> str | None:
    """Why new labels look as if they did harm; None where nothing says so, or their gain is proven."""
    earlier, contradiction = evaluation.earlier, evaluation.contradiction
    if comparison.low > 0:
        return None
    if contradiction and _contradicts(contradiction, policy):
        return (
            f"new labels contradict confident predictions of the champion: {_look_at(contradiction)}; {LEARNED_ANYWAY}"
        )
    if earlier and _spoilt(earlier, policy) and (contradiction is None or contradiction.deviation > DOUBTED):
        return f"new labels spoil the earlier ones: {_look_at(contradiction)}; decided again with the next labels"
    if not earlier and loses(comparison, policy.tolerance):  # people changed every label there was
        return f"looks worse by more than {points(policy.tolerance)}, not yet proven"
    return None


def _contradicts(contradiction: Contradiction, policy: Gate) -> bool:
    """Whether the champion would hardly ever have given these labels, and nobody has said yet that they stay.

    It may be wrong itself, and surely so: then people leave the labels, and it learns them.
    """
    return contradiction.deviation > policy.contradiction and contradiction.batches < LOOKS


def _look_at(contradiction: Contradiction | None) -> str:
    if contradiction is None or not contradiction.tasks:
        return "check the newest"
    return f"check task{'s' if len(contradiction.tasks) > 1 else ''} {', '.join(map(str, contradiction.tasks))}"


def _spoilt(earlier: LossComparison, policy: Gate) -> bool:
    """Whether the labels that both have learned are answered less well, by more than chance makes it in one of ten.

    The accuracy on all labels tells far less: new ones were chosen because they are hard, ten of them are a fifth of
    the evidence, and a wrong batch agrees with itself. See `docs/measured.md`, "The gate of a refresh".
    """
    return earlier.difference > max(policy.loss_tolerance, _chance(earlier))


def _chance(pair: Paired) -> float:
    """A difference that chance exceeds, on one side, once in ten."""
    return Z_TENTH * (pair.high - pair.low) / (2 * Z95)


def _bounded(evaluation: Evaluation, figures: tuple[str, ...], policy: Gate) -> Verdict:
    """Small losses within tolerance may not add up against the reference version.

    Where people renamed or dropped a class the champion cannot name what they see: the sum waits for more labels.
    """
    reference = evaluation.reference
    lost = reference and loses(reference, max(policy.reference_tolerance, _chance(reference)))
    if reference and lost and not evaluation.renamed:
        bound = f"lost more than {points(policy.reference_tolerance)} in all since the reference version"
        outcome = Outcome.REJECT if reference.high < 0 else Outcome.HOLD
        return Verdict(outcome, (bound, f"reference: {figures_of(reference)}", *figures))
    return Verdict(Outcome.PROMOTE, (_learned(evaluation, policy), *figures))


def _learned(evaluation: Evaluation, policy: Gate) -> str:
    learned = f"trained on {_new_labels(evaluation.new_labels)}"
    if evaluation.renamed:
        names = ", ".join(evaluation.renamed)
        learned += f"; follows the renamed, merged or dropped classes ({names})"
    comparison = evaluation.comparison
    if comparison and comparison.difference < -policy.tolerance:
        if evaluation.earlier:
            return f"{learned}; no loss on the earlier labels, too few new ones to count"
        return f"{learned}; one image lost, too few to count"
    return f"{learned}; as accurate as the champion (within {points(policy.tolerance)})"


def _judge_unseen(evaluation: Evaluation, policy: Gate) -> Verdict:
    """No label that the backbone has not seen: only the test split can tell."""
    comparison = evaluation.test_comparison
    why = "the backbone was trained on every label: only the test split counts"
    if comparison is None or comparison.n < policy.min_test_labels:
        return _hold(why, _not_enough(comparison, policy))
    if comparison.high < 0:
        return _reject(why, figures_of(comparison))
    if loses(comparison, policy.tolerance):
        return _hold(why, figures_of(comparison))
    return Verdict(Outcome.PROMOTE, (why, figures_of(comparison)))


def _judge_retrain(comparison: Comparison, policy: Gate) -> Verdict:
    """A new backbone is dear to swap: it must be shown not to be worse, and must not look worse."""
    if comparison.high < 0:
        return _reject("the new backbone is worse", figures_of(comparison))
    if comparison.low > 0:
        return Verdict(Outcome.PROMOTE, ("the new backbone is better", figures_of(comparison)))
    if comparison.n < policy.min_test_labels:
        return _hold(_not_enough(comparison, policy), figures_of(comparison))
    if comparison.changed == 0:
        return _hold("same predictions on every test image: a swap gains nothing", figures_of(comparison))
    if comparison.low >= -policy.tolerance and comparison.difference >= 0:
        return Verdict(Outcome.PROMOTE, ("the new backbone is at least as good", figures_of(comparison)))
    return _hold(_not_enough(comparison, policy), figures_of(comparison))


def loses(comparison: Comparison, tolerance: float) -> bool:
    """Whether the bare figure is beyond tolerance; a single image never is."""
    return comparison.difference < -max(tolerance, 1.5 / comparison.n)


def _not_enough(comparison: Comparison | None, policy: Gate) -> str:
    if comparison is None or comparison.n == 0:
        return "not enough evidence: no test labels"
    half = (comparison.high - comparison.low) / 2
    needed = max(policy.min_test_labels, comparison.n + 1, math.ceil(comparison.n * (half / policy.tolerance) ** 2))
    size = float(f"{needed:.2g}")
    return (
        f"not enough evidence: {comparison.n} test labels, about {size:.0f} needed "
        f"to detect a difference of {points(policy.tolerance)}"
    )


def accuracies_of(comparison: Comparison, count: str) -> str:
    """Both accuracies; ``count``: on how many."""
    return f"{comparison.on}: {comparison.challenger:.3f} against {comparison.champion:.3f} on {count}"


def figures_of(comparison: Comparison) -> str:
    """Both accuracies and their difference, with its interval."""
    return (
        f"{accuracies_of(comparison, labels_in_words(comparison.n))} "
        f"(difference {100 * comparison.difference:+.1f} points, "
        f"95 % interval {100 * comparison.low:+.1f} to {100 * comparison.high:+.1f})"
    )


def _losses_of(losses: LossComparison) -> str:
    return (
        f"{losses.on}: log loss {losses.challenger:.3f} against {losses.champion:.3f} on {labels_in_words(losses.n)} "
        f"(difference {losses.difference:+.3f}, 95 % interval {losses.low:+.3f} to {losses.high:+.3f}; less is better)"
    )


def _contradiction_of(contradiction: Contradiction, policy: Gate) -> str:
    plausible = "not plausible" if contradiction.deviation > policy.contradiction else "plausible"
    return (
        f"{contradiction.n} new label{'' if contradiction.n == 1 else 's'}: log loss {contradiction.loss:.3f}, "
        f"champion expected {contradiction.expected:.3f} ({contradiction.deviation:+.1f} SE): {plausible}"
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
