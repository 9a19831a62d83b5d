"""What else can stop a model, rule by rule: the evaluation in, a finding in words and numbers out. Pure.

A rule gives None where there is nothing to judge on, and never blocks a challenger for a fault that the champion has
as well: the worse one would stay live.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from labelloop.config.project import Gate
from labelloop.records.evidence import Calibration, Check, ClassRecall, Evaluation, Outcome
from labelloop.rules.gate.paired import labels_in_words, loses, points, told_of

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
    found = evaluation.artefact
    if found is None:
        return None
    told = f"probabilities on {_images(found.images)} are {found.difference:.2g} off those that were evaluated"
    if found.difference > SAME:
        return _reject("artefact", f"the artefact to serve differs from the one evaluated: its {told}")
    return _fine("artefact", f"loaded as in the backend, its {told} at most")


def class_order(evaluation: Evaluation, policy: Gate) -> Check | None:
    """A head whose rows are in another order than its class names."""
    known, other = evaluation.known_accuracy, evaluation.renaming
    if known is None or other is None:
        return None
    if other.accuracy - known > SWAPPED:
        return _reject(
            "class order",
            f"class names are swapped ({', '.join(other.names)}): right on {known:.3f} of the labels it learned from, "
            f"on {other.accuracy:.3f} if these names were exchanged",
        )
    return _fine("class order", f"right on {known:.3f} of the labels it learned from, under its own class names")


def knows_its_labels(evaluation: Evaluation, policy: Gate) -> Check | None:
    """The head that would serve, on its own training labels: worse than out of fold means that it is not that head."""
    known, unseen = evaluation.known_accuracy, evaluation.accuracy
    if known is None or unseen is None:
        return None
    told = f"{known:.3f} on the labels it learned from, {unseen:.3f} out of fold"
    if known < unseen - FORGOT:
        return _reject("known labels", f"the head fails on its own training labels: {told}")
    return _fine("known labels", told)


def chance(evaluation: Evaluation, policy: Gate) -> Check | None:
    """Labels from which nothing can be learned, such as shuffled ones; never where more than nothing is shown.

    Where one class is nearly everything, all that can be learned is a few points above it.
    """
    found, low, high = evaluation.accuracy, evaluation.accuracy_low, evaluation.accuracy_high
    if found is None or low is None:
        return None
    most, judged = evaluation.majority, labels_in_words(evaluation.judged_on)
    told = f"{found:.3f} right out of fold on {judged}, largest class alone {most:.3f}"
    least = most + min(LEARNED_MOST, LEARNED * (1 - most))
    if evaluation.judged_on >= policy.min_test_labels and low <= most and high is not None and high < least:
        return _reject("chance", f"nothing was learned; labels look random: {told}")
    return _fine("chance", told)


def random_labels(evaluation: Evaluation, policy: Gate) -> Check | None:
    """The heads that serve on the random test bucket: nothing else sees what another recipe of the head does.

    A retrain, and labels that the backbone saw, are judged by it anyway: `paired`. A loss that is not proven says
    little of ten more labels under the same recipe, whose evidence is out of fold.
    """
    found, other = evaluation.test_comparison, evaluation.head_changed
    judged_by_it = evaluation.kind == "retrain" or evaluation.comparison is None or evaluation.comparison.n == 0
    if found is None or found.n == 0 or judged_by_it:
        return None
    if found.high < 0:
        return _reject("random labels", f"worse on random labels: {told_of(found)}")
    if not other:
        return _fine("random labels", told_of(found))
    why = f"the head's recipe differs from the champion's ({', '.join(other)})"
    if found.n < policy.min_test_labels:
        few = f"judged from {policy.min_test_labels} random labels on, have {found.n}"
        return _warn("random labels", f"{why}: {few}")
    if loses(found, policy.tolerance):
        lost = f"looks worse by more than {points(policy.tolerance)}, not yet proven"
        return _hold("random labels", f"{why}; {lost}: {told_of(found)}")
    return _fine("random labels", f"{why}: {told_of(found)}")


def minimum(evaluation: Evaluation, policy: Gate) -> Check | None:
    """An accuracy below which nothing goes live, on labels drawn at random."""
    found, n = evaluation.test_accuracy, evaluation.test_n
    if found is None:
        return None
    told = f"{found:.3f} on {labels_in_words(n)} of the test split, needs {policy.min_accuracy:.2f}"
    if n < policy.min_test_labels:
        return _fine("minimum accuracy", f"judged from {policy.min_test_labels} test labels on: {told}")
    if found >= policy.min_accuracy:
        return _fine("minimum accuracy", told)
    champion = evaluation.test_comparison.champion if evaluation.test_comparison else None
    if champion is not None and champion <= found:
        return _fine("minimum accuracy", f"{told}; still an improvement, the champion has {champion:.3f}")
    shown = evaluation.test_high is not None and evaluation.test_high < policy.min_accuracy
    reason = f"below the minimum accuracy: {told}"
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
    found = evaluation.comparison
    if evaluation.kind != "retrain" or found is None or not found.n:
        return None
    told = f"{found.on}: {found.challenger:.3f} against {found.champion:.3f} on {labels_in_words(found.n)}"
    if found.high < 0:
        return _reject("later labels", f"worse on images that the champion was unsure of: {told}")
    if found.n >= policy.min_test_labels and found.difference < -policy.tolerance:
        return _hold("later labels", f"looks worse on images that the champion was unsure of: {told}")
    return _fine("later labels", told)


def calibration(evaluation: Evaluation, policy: Gate) -> Check | None:
    """Who works with the probabilities must be able to believe them.

    On the random test bucket beside the champion's, where there are labels enough; else out of fold.
    """
    found = evaluation.calibration
    if found and found.n >= (MIN_ECE_LABELS if found.champion is None else policy.min_test_labels):
        return _calibrated(found, policy)
    if evaluation.ece is None or evaluation.judged_on < MIN_ECE_LABELS:
        return None
    told = f"expected calibration error {evaluation.ece:.3f} on {labels_in_words(evaluation.judged_on)}"
    if evaluation.ece > policy.max_ece:
        return _hold("calibration", f"probabilities are unreliable: {told}, {policy.max_ece:.2f} allowed")
    return _fine("calibration", told)


def _calibrated(found: Calibration, policy: Gate) -> Check:
    told = f"expected calibration error {found.challenger:.3f} on {labels_in_words(found.n)} of the test split"
    beside = "" if found.champion is None else f", the champion's {found.champion:.3f}"
    if found.challenger <= policy.max_ece:
        return _fine("calibration", f"{told}{beside}")
    told = f"{told}{beside}, {policy.max_ece:.2f} allowed"
    if found.champion is None or found.challenger - found.champion > found.chance:
        return _hold("calibration", f"probabilities are unreliable: {told}")
    return _warn("calibration", f"probabilities are unreliable, like the champion's: {told}")


def robustness(evaluation: Evaluation, policy: Gate) -> Check | None:
    """Noise and blur may not cost more than they cost the champion."""
    found = evaluation.robustness
    if found is None or not found.n:
        return None
    told = f"{found.on}: {found.challenger:.3f} against {found.champion:.3f} on {_images(found.n)}"
    if found.high < -policy.robustness_tolerance:
        return _reject("robustness", f"fails on noisy or blurred images: {told}")
    if found.difference < -policy.robustness_tolerance:
        return _hold("robustness", f"loses more than {points(policy.robustness_tolerance)} on noise and blur: {told}")
    return _fine("robustness", told)


def latency(evaluation: Evaluation, policy: Gate) -> Check | None:
    """The artefact that will serve, beside the one that does."""
    found = evaluation.artefact
    if found is None or not found.champion_ms:
        return None
    more = found.ms / found.champion_ms - 1
    told = f"{found.ms:.1f} ms an image against {found.champion_ms:.1f} ms ({100 * more:+.0f} %)"
    if more > policy.slowdown and found.ms - found.champion_ms > NOTICED_MS:
        return _hold("latency", f"too slow: {told}, {100 * policy.slowdown:.0f} % more allowed")
    return _fine("latency", told)


RULES: Sequence[Rule] = (
    artefact, class_order, knows_its_labels, chance, random_labels, minimum, later_labels, class_recall, calibration,
    robustness, latency,
)  # fmt: skip


def _among(found: ClassRecall) -> float:
    return found.challenger if found.among is None else found.among


def _recalls(found: Sequence[ClassRecall]) -> str:
    return ", ".join(_recall(r) for r in sorted(found, key=lambda r: r.challenger)[:3])


def _recall(found: ClassRecall) -> str:
    was = f" (was {found.champion:.2f})" if found.champion is not None else ""
    return f"{found.name} recognised {found.challenger:.2f}{was} of {labels_in_words(found.n)}"


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
