"""What else can stop a model, rule by rule: the evaluation in, a finding in words and numbers out. Pure.

A rule gives None where there is nothing to judge on, and never blocks a challenger for a fault that the champion has
as well: the worse one would stay live.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from labelloop.config.project import Gate
from labelloop.records.evidence import Calibration, Check, ClassRecall, Evaluation, Outcome
from labelloop.rules.gate.paired import accuracies_of, figures_of, labels_in_words, loses, points

Rule = Callable[[Evaluation, Gate], Check | None]

FORGOT = 0.10  # loss on the very labels it learned from, against images it has not seen, that no fit explains
SWAPPED = 0.30  # what a renaming of classes must win to be the likely cause
LEARNED = 0.10  # of what always naming the largest class gets wrong: less is as good as nothing ...
LEARNED_MOST = 0.05  # ... and of all labels: what small classes leave to be learned is little
SAME = 1e-3  # probabilities of the same bytes: in serving and in evaluation
NOTICED_MS = 1.0  # of an image: nobody notices less, and small networks spread as much from run to run
MIN_ECE_LABELS = 100  # below, ten bins are mostly noise


def artefact(evaluation: Evaluation, policy: Gate) -> Check | None:
    """What will serve must say what was evaluated: another preprocessing or class order shows here."""
    loaded = evaluation.artefact
    if loaded is None:
        return None
    figures = f"probabilities on {_images(loaded.images)} are {loaded.difference:.2g} off those that were evaluated"
    if loaded.difference > SAME:
        return _reject("artefact", f"the artefact to serve differs from the one evaluated: its {figures}")
    return _fine("artefact", f"loaded as in the backend, its {figures} at most")


def class_order(evaluation: Evaluation, policy: Gate) -> Check | None:
    """A head whose rows are in another order than its class names."""
    accuracy, other = evaluation.known_accuracy, evaluation.renaming
    if accuracy is None or other is None:
        return None
    if other.accuracy - accuracy > SWAPPED:
        return _reject(
            "class order",
            f"class names are swapped ({', '.join(other.names)}): right on {accuracy:.3f} of the labels it learned "
            f"from, on {other.accuracy:.3f} if these names were exchanged",
        )
    return _fine("class order", f"right on {accuracy:.3f} of the labels it learned from, under its own class names")


def knows_its_labels(evaluation: Evaluation, policy: Gate) -> Check | None:
    """The head that would serve, on its own training labels: worse than out of fold means that it is not that head."""
    accuracy, unseen = evaluation.known_accuracy, evaluation.accuracy
    if accuracy is None or unseen is None:
        return None
    figures = f"{accuracy:.3f} on the labels it learned from, {unseen:.3f} out of fold"
    if accuracy < unseen - FORGOT:
        return _reject("known labels", f"the head fails on its own training labels: {figures}")
    return _fine("known labels", figures)


def chance(evaluation: Evaluation, policy: Gate) -> Check | None:
    """Labels from which nothing can be learned, such as shuffled ones; never where more than nothing is shown.

    Where one class is nearly everything, all that can be learned is a few points above it.
    """
    accuracy, low, high = evaluation.accuracy, evaluation.accuracy_low, evaluation.accuracy_high
    if accuracy is None or low is None:
        return None
    most, judged = evaluation.majority, labels_in_words(evaluation.judged_on)
    figures = f"{accuracy:.3f} right out of fold on {judged}, largest class alone {most:.3f}"
    least = most + min(LEARNED_MOST, LEARNED * (1 - most))
    if evaluation.judged_on >= policy.min_test_labels and low <= most and high is not None and high < least:
        return _reject("chance", f"nothing was learned; labels look random: {figures}")
    return _fine("chance", figures)


def random_labels(evaluation: Evaluation, policy: Gate) -> Check | None:
    """The heads that serve on the random test split: nothing else sees what another recipe of the head does.

    A retrain, and labels that the backbone saw, are judged by it anyway: `paired`. A loss that is not proven says
    little of ten more labels under the same recipe, whose evidence is out of fold.
    """
    comparison, other = evaluation.test_comparison, evaluation.head_changed
    judged_by_it = evaluation.kind == "retrain" or evaluation.comparison is None or evaluation.comparison.n == 0
    if comparison is None or comparison.n == 0 or judged_by_it:
        return None
    if comparison.high < 0:
        return _reject("random labels", f"worse on random labels: {figures_of(comparison)}")
    if not other:
        return _fine("random labels", figures_of(comparison))
    why = f"the head's recipe differs from the champion's ({', '.join(other)})"
    if comparison.n < policy.min_test_labels:
        few = f"judged from {policy.min_test_labels} random labels on, have {comparison.n}"
        return _warn("random labels", f"{why}: {few}")
    if loses(comparison, policy.tolerance):
        lost = f"looks worse by more than {points(policy.tolerance)}, not yet proven"
        return _hold("random labels", f"{why}; {lost}: {figures_of(comparison)}")
    return _fine("random labels", f"{why}: {figures_of(comparison)}")


def minimum(evaluation: Evaluation, policy: Gate) -> Check | None:
    """An accuracy below which nothing goes live, on labels drawn at random."""
    accuracy, n = evaluation.test_accuracy, evaluation.test_n
    if accuracy is None:
        return None
    figures = f"{accuracy:.3f} on {labels_in_words(n)} of the test split, needs {policy.min_accuracy:.2f}"
    if n < policy.min_test_labels:
        return _fine("minimum accuracy", f"judged from {policy.min_test_labels} test labels on: {figures}")
    if accuracy >= policy.min_accuracy:
        return _fine("minimum accuracy", figures)
    champion = evaluation.test_comparison.champion if evaluation.test_comparison else None
    if champion is not None and champion <= accuracy:
        return _fine("minimum accuracy", f"{figures}; still an improvement, the champion has {champion:.3f}")
    shown = evaluation.test_high is not None and evaluation.test_high < policy.min_accuracy
    reason = f"below the minimum accuracy: {figures}"
    return _reject("minimum accuracy", reason) if shown else _hold("minimum accuracy", f"{reason}, not yet proven")


def class_recall(evaluation: Evaluation, policy: Gate) -> Check | None:
    """No class may be given up for the sake of the others: among those that both know, as more names are no loss."""
    judged = [r for r in evaluation.recalls if r.n >= policy.recall_labels]
    if not judged:
        return None
    dropped = [r for r in judged if _among(r) < (r.champion or 0.0) - policy.recall_drop]
    proven = [r for r in dropped if r.drop_high < 0]
    if proven:
        return _reject("class recall", f"loses a class: {_recalls(proven)}")
    low = [r for r in judged if r.high < policy.recall_floor]
    lost = [r for r in low if r.champion is None or r.champion > r.challenger]
    floor = f"below the floor of {policy.recall_floor:.2f}"
    if lost:
        return _hold("class recall", f"{floor}: {_recalls(lost)}")
    if low:
        return _warn("class recall", f"{floor}, like the champion: {_recalls(low)}")
    worst = min(judged, key=lambda r: r.challenger)
    return _fine("class recall", f"weakest of {len(judged)} classes: {_recalls([worst])}")


def later_labels(evaluation: Evaluation, policy: Gate) -> Check | None:
    """Labels that came while a backbone was fine-tuned. They can only speak against it.

    People saw these images because the champion was unsure of them, so they make it look worse than it is.
    """
    comparison = evaluation.comparison
    if evaluation.kind != "retrain" or comparison is None or not comparison.n:
        return None
    figures = accuracies_of(comparison, labels_in_words(comparison.n))
    if comparison.high < 0:
        return _reject("later labels", f"worse on images that the champion was unsure of: {figures}")
    if comparison.n >= policy.min_test_labels and comparison.difference < -policy.tolerance:
        return _hold("later labels", f"looks worse on images that the champion was unsure of: {figures}")
    return _fine("later labels", figures)


def calibration(evaluation: Evaluation, policy: Gate) -> Check | None:
    """Who works with the probabilities must be able to believe them.

    On the random test split beside the champion's, where there are labels enough; else out of fold.
    """
    on_test = evaluation.calibration
    if on_test and on_test.n >= (MIN_ECE_LABELS if on_test.champion is None else policy.min_test_labels):
        return _calibrated(on_test, policy)
    if evaluation.ece is None or evaluation.judged_on < MIN_ECE_LABELS:
        return None
    figures = f"expected calibration error {evaluation.ece:.3f} on {labels_in_words(evaluation.judged_on)}"
    if evaluation.ece > policy.max_ece:
        return _hold("calibration", f"probabilities are unreliable: {figures}, {policy.max_ece:.2f} allowed")
    return _fine("calibration", figures)


def _calibrated(errors: Calibration, policy: Gate) -> Check:
    figures = f"expected calibration error {errors.challenger:.3f} on {labels_in_words(errors.n)} of the test split"
    beside = "" if errors.champion is None else f", the champion's {errors.champion:.3f}"
    if errors.challenger <= policy.max_ece:
        return _fine("calibration", f"{figures}{beside}")
    figures = f"{figures}{beside}, {policy.max_ece:.2f} allowed"
    if errors.champion is None or errors.challenger - errors.champion > errors.chance:
        return _hold("calibration", f"probabilities are unreliable: {figures}")
    return _warn("calibration", f"probabilities are unreliable, like the champion's: {figures}")


def robustness(evaluation: Evaluation, policy: Gate) -> Check | None:
    """Noise and blur may not cost more than they cost the champion."""
    comparison = evaluation.robustness
    if comparison is None or not comparison.n:
        return None
    figures = accuracies_of(comparison, _images(comparison.n))
    if comparison.high < -policy.robustness_tolerance:
        return _reject("robustness", f"fails on noisy or blurred images: {figures}")
    if comparison.difference < -policy.robustness_tolerance:
        return _hold(
            "robustness", f"loses more than {points(policy.robustness_tolerance)} on noise and blur: {figures}"
        )
    return _fine("robustness", figures)


def latency(evaluation: Evaluation, policy: Gate) -> Check | None:
    """The artefact that will serve, beside the one that does."""
    loaded = evaluation.artefact
    if loaded is None or not loaded.champion_ms:
        return None
    more = loaded.ms / loaded.champion_ms - 1
    figures = f"{loaded.ms:.1f} ms an image against {loaded.champion_ms:.1f} ms ({100 * more:+.0f} %)"
    if more > policy.slowdown and loaded.ms - loaded.champion_ms > NOTICED_MS:
        return _hold("latency", f"too slow: {figures}, {100 * policy.slowdown:.0f} % more allowed")
    return _fine("latency", figures)


RULES: Sequence[Rule] = (
    artefact, class_order, knows_its_labels, chance, random_labels, minimum, later_labels, class_recall, calibration,
    robustness, latency,
)  # fmt: skip


def _among(recall: ClassRecall) -> float:
    return recall.challenger if recall.among is None else recall.among


def _recalls(recalls: Sequence[ClassRecall]) -> str:
    return ", ".join(_recall(r) for r in sorted(recalls, key=lambda r: r.challenger)[:3])


def _recall(recall: ClassRecall) -> str:
    was = f" (was {recall.champion:.2f})" if recall.champion is not None else ""
    return f"{recall.name} recognised {recall.challenger:.2f}{was} of {labels_in_words(recall.n)}"


def _images(n: int) -> str:
    return f"{n} image" if n == 1 else f"{n} images"


def _fine(rule: str, reason: str) -> Check:
    return Check(rule, Outcome.PROMOTE, reason)


def _warn(rule: str, reason: str) -> Check:
    return Check(rule, Outcome.PROMOTE, reason, warns=True)


def _hold(rule: str, reason: str) -> Check:
    return Check(rule, Outcome.HOLD, reason)


def _reject(rule: str, reason: str) -> Check:
    return Check(rule, Outcome.REJECT, reason)
