"""Arms and what came of looking in, their figures out: all on the same images, and one beside the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from labelloop.records.arrays import Floats
from retrain_worker.evidence.answers import paired
from retrain_worker.report.answers import ArmAnswers, PixelAnswers
from retrain_worker.report.findings import ArmFindings, Compared, JudgedImages
from retrain_worker.report.inputs import Arm, Inputs
from retrain_worker.report.latency import Serving, serving
from retrain_worker.report.measures import Ints, measure, predicted
from retrain_worker.report.resampling import Resampled
from retrain_worker.report.robustness import Robustness, robustness


def judge(inputs: Inputs, looked: PixelAnswers, classes: Sequence[str]) -> JudgedImages:
    """All images where every arm brought probabilities, else those that could be read: the same for both."""
    kept = all(arm.probabilities is not None for arm in inputs.arms)
    there = np.ones(len(inputs.uris), dtype=np.bool_) if kept else looked.readable
    uris = tuple(uri for uri, use in zip(inputs.uris, there, strict=True) if use)
    probabilities = tuple(
        _probabilities(arm, answers, looked, kept=kept, classes=classes)
        for arm, answers in zip(inputs.arms, looked.arms, strict=True)
    )
    return JudgedImages(uris, _truth(inputs, classes)[there], probabilities)


def measured(
    inputs: Inputs, looked: PixelAnswers, judged: JudgedImages, resampled: Resampled, classes: Sequence[str]
) -> list[ArmFindings]:
    """Every arm's figures."""
    truth = _truth(inputs, classes)[looked.readable]
    costs = _costs(inputs)
    return [
        ArmFindings(
            arm.name, arm.backbone.record if arm.backbone else None,
            measure(judged.probabilities[k], judged.truth, classes, arm.known), resampled.arms[k],
            _disturbed(looked.arms[k], truth), costs[k],
        )
        for k, arm in enumerate(inputs.arms)
    ]  # fmt: skip


def compare(judged: JudgedImages, resampled: Resampled) -> Compared | None:
    """None where there is no champion or nothing to judge on."""
    if len(judged.probabilities) < 2 or not judged.uris:
        return None
    ours, theirs = (predicted(probabilities) for probabilities in judged.probabilities)
    truth, before, after = (np.asarray(codes.astype(np.str_)) for codes in (judged.truth, theirs, ours))
    accuracy = paired(truth, champion=before, challenger=after, on="labels of the random test split")
    gained = int(((after == truth) & (before != truth)).sum())
    lost = int(((before == truth) & (after != truth)).sum())
    return Compared(accuracy, gained, lost, resampled.difference)


def _truth(inputs: Inputs, classes: Sequence[str]) -> Ints:
    place = {name: k for k, name in enumerate(classes)}
    return np.array([place[label] for label in inputs.labels], dtype=np.int64)


def _probabilities(
    arm: Arm, answers: ArmAnswers, looked: PixelAnswers, *, kept: bool, classes: Sequence[str]
) -> Floats:
    if arm.probabilities is None:
        return answers.clean if answers.clean is not None else np.empty((0, len(classes)), dtype=np.float32)
    aligned = arm.aligned(arm.probabilities, classes)
    return aligned if kept else aligned[looked.readable]


def _disturbed(answers: ArmAnswers, truth: Ints) -> tuple[Robustness, ...]:
    return () if answers.clean is None else robustness(answers.clean, answers.disturbed, truth)


def _costs(inputs: Inputs) -> list[Serving | None]:
    """Timed once for arms that share a backbone, so that both show the same figure."""
    timed: dict[str, Serving] = {}
    for k, arm in enumerate(inputs.arms):
        inputs.progress("latency", k, len(inputs.arms))
        if arm.backbone and arm.backbone.record.id not in timed:
            timed[arm.backbone.record.id] = serving(arm.backbone, arm.head, inputs.timer)
    return [
        replace(timed[arm.backbone.record.id], head_bytes=len(arm.head.dump())) if arm.backbone else None
        for arm in inputs.arms
    ]
